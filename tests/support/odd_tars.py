"""Tar archives with headers that no program for archives writes."""

import io
import random
import tarfile
from collections.abc import Mapping

_LIST = "CUB_200_2011/images.txt"
_IMAGE = "CUB_200_2011/images/001.Bird_0/Bird_0.jpg"


def odd_tar(chance: random.Random, files: Mapping[str, bytes]) -> tuple[str, bytes]:
    """Return an archive with one odd header, and what is odd about it."""
    kinds = {
        "an odd size": _odd_size(chance),
        "an odd name": _odd_name(chance),
        "no file": _no_file(chance),
        "a long header": _long_header(chance),
        "a record of pax": _pax(chance),
        "a list of 600 MB": _header(_LIST, 600 * 10**6) + bytes(5120),
        "a list twice": 2 * (_header(_LIST, 2) + b"1 ".ljust(512, b"\0")),
        "an image twice": 2 * (_header(_IMAGE, 2) + b"1 ".ljust(512, b"\0")),
        "many headers for one file": 2000 * _header("././@LongLink", 1, b"L", 512),
        "many headers for all files": 2000 * _record("comment=a", tarfile.XGLTYPE),
    }
    name, odd = chance.choice(list(kinds.items()))
    good = io.BytesIO()
    with tarfile.open(fileobj=good, mode="w") as archive:
        for file, content in files.items():
            member = tarfile.TarInfo(file)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return name, odd + good.getvalue()


def _header(
    name: str, size: int, kind: bytes = tarfile.REGTYPE, data: int = 0
) -> bytes:
    """Return a header with a right checksum, and empty data after it."""
    member = tarfile.TarInfo(name)
    member.type = kind
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))[-512:]
    if 0 <= size < 8**11:
        block[124:136] = b"%011o\0" % size
    else:
        block[124] = 0x80 if size > 0 else 0xFF
        block[125:136] = (size % 256**11).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(data)


def _odd_size(chance: random.Random) -> bytes:
    size = chance.choice((2**40, 2**62, 2**80, -1, -512, -1024, -(2**40)))
    kind = chance.choice((b"0", b"L", b"K", b"x", b"g", b"S"))
    return _header(chance.choice((_LIST, _IMAGE, "a")), size, kind, 1024)


def _odd_name(chance: random.Random) -> bytes:
    name = chance.choice(("../a.jpg", "/etc/a.jpg", "a/../../b.jpg", "C:\\a.jpg"))
    if chance.random() < 0.5:
        return _header(name, 0)
    long = chance.choice((b"a/" * 4000 + b"a.jpg", b"\xff/a.jpg", b"../" * 200))
    length = 512 * (-(-len(long) // 512))
    head = _header("././@LongLink", len(long) + 1, b"L")
    return head + long.ljust(length + 512, b"\0")[:length] + _header("a", 0)


def _no_file(chance: random.Random) -> bytes:
    return _header("a.jpg", 0, chance.choice((b"1", b"2", b"3", b"4", b"6", b"S")))


def _long_header(chance: random.Random) -> bytes:
    size = chance.choice((2**20, 2**30))
    return _header("a", size, chance.choice((b"L", b"K", b"x", b"g")), 2**20)


def _record(text: str, kind: bytes = tarfile.XHDTYPE) -> bytes:
    length = len(text) + 3
    while len(f"{length} {text}\n") != length:
        length = len(f"{length} {text}\n")
    data = f"{length} {text}\n".encode("utf-8", "surrogateescape")
    blocks = 512 * (-(-len(data) // 512))
    return _header("pax", len(data), kind) + data.ljust(blocks, b"\0")


def _pax(chance: random.Random) -> bytes:
    record = chance.choice(
        (
            *("size=-1024", "size=-512", f"size={2**50}", f"size={'9' * 5000}"),
            *("size=1e400", "path=../../a.jpg", "path=/a.jpg", "path=a\0b.jpg"),
            *("size=nan", "GNU.sparse.size=1099511627776", "hdrcharset=magic"),
            *("GNU.sparse.major=1\n", f"GNU.sparse.map={'0,1,' * 99}0,1"),
        )
    )
    if chance.random() < 0.1:
        data = b"9" * chance.choice((10, 5000)) + b" a=b\n"
        return _header("pax", len(data), b"x") + data.ljust(5120, b"\0")[:5120]
    if record.startswith("GNU.sparse.major"):
        both = _record("GNU.sparse.major=1\n22 GNU.sparse.minor=0")
        return both + _header("a", 512) + b"99999999\n".ljust(512, b"1")
    return _record(record) + _header(chance.choice((_LIST, _IMAGE)), 10, data=512)
