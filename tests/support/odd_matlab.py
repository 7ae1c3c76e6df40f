"""MATLAB files that are damaged, deep, or inflate."""

import functools
import random
import struct
import zlib

from damage import WAYS
from small_archives import cars_files, matlab

_HEADER = 126 * b" " + b"IM"


def odd_matlab(chance: random.Random) -> tuple[str, bytes]:
    """Return such a file, and what is odd about it."""
    content = chance.choice(
        [value for name, value in cars_files()[1].items() if name.endswith(".mat")]
    )
    if chance.random() < 0.3:
        content = _HEADER + _compressed(content[128:])
    if chance.random() < 0.7:
        name, way = chance.choice(list(WAYS.items()))
        return name.replace(" ", "-"), way(chance, content)
    zeros = matlab(a=[[0.0] * 1000])[128:]
    return chance.choice(
        (
            ("deep", _HEADER + _cells(9)),
            ("deep-and-packed", _HEADER + _compressed(_cells(500))),
            ("bomb", _HEADER + _bomb()),
            ("many", _HEADER + _array(1, (2**31 - 1, 2**31 - 1), b"")),
            (
                "many-numbers",
                _HEADER + _array(6, (2**31 - 1, 9), _element(9, bytes(80))),
            ),
            ("negative", _HEADER + _array(6, (-1, -1), _element(9, bytes(8)))),
            ("of-no-class", _HEADER + _array(17, (1, 1), _element(9, bytes(8)))),
            ("of-version-7.3", b"MATLAB 7.3".ljust(126) + b"IM" + bytes(99)),
            ("of-version-4", struct.pack("<5I", 0, 1, 1, 0, 2) + b"a\0" + bytes(8)),
            ("twice", _HEADER + zeros + zeros),
        )
    )


@functools.cache
def _bomb() -> bytes:
    return _compressed(_element(14, bytes(2**24 + 8)))


def _element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def _array(kind: int, sizes: tuple[int, ...], inside: bytes) -> bytes:
    head = _element(6, struct.pack("<II", kind, 0))
    head += _element(5, struct.pack(f"<{len(sizes)}i", *sizes)) + _element(1, b"a")
    return _element(14, head + inside)


def _cells(depth: int) -> bytes:
    inside = _array(6, (1, 1), _element(9, bytes(8)))
    for _ in range(depth):
        inside = _array(1, (1, 1), inside)
    return inside


def _compressed(data: bytes) -> bytes:
    packed = zlib.compress(data)
    return struct.pack("<II", 15, len(packed)) + packed
