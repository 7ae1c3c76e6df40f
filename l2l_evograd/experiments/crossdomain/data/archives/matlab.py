"""A reader of MATLAB files (version 5) that contain names, numbers, cells and structs.

Nothing in the file is trusted: sizes are compared with what is there before anything
is read, and neither memory nor depth grows beyond fixed limits.

Source: MAT-File Format, The MathWorks, 2023, chapter 1.
"""

import math
import struct
import zlib
from typing import Any

# The files of the data sets have 0.1 MB, unpacked 2 MB, and two levels.
MOST_BYTES = 2**24
_DEEPEST = 8

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMBERS = range(6, 16)  # classes of arrays

# Types of elements: their codes in the struct module, and encodings of text.
_CODES = {
    **{1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I"},
    **{7: "f", 9: "d", 12: "q", 13: "Q"},
}
_TEXT = {16: "utf-8", 17: "utf-16", 18: "utf-32"}

_HDF5 = b"\x89HDF"


def read_matlab(content: bytes) -> dict[str, Any]:
    """Return the variables of a MATLAB file by their names.

    A cell array becomes a list, a struct array a list of dictionaries, text a string,
    and an array of numbers a tuple, all in MATLAB's order.

    Args:
        content: content of the file.

    Raises:
        ValueError: if it is not such a file, is cut short or damaged, contains
            something else, or has more than :data:`MOST_BYTES` bytes unpacked.

    Cost: about 5 µs for each element, such as a text or a number.
    """
    if content.startswith(_HDF5) or b"MATLAB 7.3" in content[:_HEADER]:
        raise ValueError("it is a file of version 7.3; save it with -v7")
    order = {b"IM": "<", b"MI": ">"}.get(content[_HEADER - 2 : _HEADER])
    if order is None:
        raise ValueError("it does not begin as a MATLAB file of version 5")
    variables, left = {}, MOST_BYTES
    outer = _Elements(content[_HEADER:], order)
    while outer.left:
        kind, data = outer.next(padded=False)
        if kind == _COMPRESSED:
            data = _unpacked(data, left)
            left -= len(data)
            kind, data = _Elements(data, order).next(padded=False)
        if kind != _MATRIX:
            raise ValueError(f"expected an array, found an element of type {kind}")
        name, value = _array(_Elements(data, order), 0)
        variables[name] = value
    return variables


class _Elements:
    """The elements in a part of a file, one after the other."""

    def __init__(self, data: bytes, order: str) -> None:
        self.order = order
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        """Number of bytes that are left."""
        return len(self._data) - self._at

    def next(self, padded: bool = True) -> tuple[int, bytes]:
        """Return the type and the bytes of the next element."""
        (first,) = struct.unpack(f"{self.order}I", self._take(4))
        if first >> 16:  # a small element: size, type, and up to four bytes
            kind, size = first & 0xFFFF, first >> 16
            if size > 4:
                raise ValueError(f"a small element of {size} bytes")
            return kind, self._take(4)[:size]
        (size,) = struct.unpack(f"{self.order}I", self._take(4))
        data = self._take(size)
        if padded:
            self._take(min(-size % 8, self.left))
        return first, data

    def numbers(self) -> tuple[Any, ...]:
        """Return the numbers in the next element."""
        kind, data = self.next()
        if kind not in _CODES:
            raise ValueError(f"expected numbers, found an element of type {kind}")
        width = struct.calcsize(f"={_CODES[kind]}")
        if len(data) % width:
            raise ValueError(f"{len(data)} bytes for numbers of {width} bytes")
        code = f"{self.order}{len(data) // width}{_CODES[kind]}"
        return struct.unpack(code, data)

    def text(self) -> str:
        """Return the text in the next element."""
        kind, data = self.next()
        if kind in _TEXT:
            ends = {"<": "-le", ">": "-be"}[self.order]
            return data.decode(_TEXT[kind] + (ends if kind != 16 else ""))
        wide = "utf-16-le" if self.order == "<" else "utf-16-be"
        return data.decode(wide if kind in (3, 4) else "latin-1")

    def _take(self, count: int) -> bytes:
        if count > self.left:
            raise ValueError(f"{count} bytes expected, {self.left} left")
        self._at += count
        return self._data[self._at - count : self._at]


def _unpacked(data: bytes, most: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(data, most)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if unpacker.unconsumed_tail:
        raise ValueError(f"it has more than {MOST_BYTES // 2**20} MiB unpacked")
    if not unpacker.eof:
        raise ValueError("a compressed array is cut short")
    return unpacked


def _array(inside: _Elements, depth: int) -> tuple[str, Any]:
    """Return the name and the value of an array, from the elements in it."""
    if depth > _DEEPEST:
        raise ValueError(f"cells and structs in more than {_DEEPEST} levels")
    flags, sizes = inside.numbers(), inside.numbers()
    name = inside.text()
    if not flags or not sizes or min(sizes) < 0:
        raise ValueError("an array without a class or with negative sizes")
    kind, count = int(flags[0]) & 0xFF, math.prod(sizes)
    if kind == _CHAR:
        # The text of several rows is stored by columns; the files have one row.
        text = inside.text()
        if len(text) != count:
            raise ValueError(f"a text of {count} letters with {len(text)}")
        return name, text
    if kind in _NUMBERS:
        found = inside.numbers()
        if len(found) != count:
            raise ValueError(f"an array of {count} numbers with {len(found)}")
        return name, found
    if kind == _CELL:
        return name, [_inner(inside, depth) for _ in _counted(count, inside)]
    if kind == _STRUCT:
        fields = _fields(inside)
        each = _counted(count * len(fields), inside)
        values = [_inner(inside, depth) for _ in each]
        step = len(fields) or 1
        starts = range(0, len(values), step)
        return name, [
            dict(zip(fields, values[s : s + step], strict=True)) for s in starts
        ]
    raise ValueError(f"an array of class {kind}")


def _inner(inside: _Elements, depth: int) -> Any:
    kind, data = inside.next()
    if kind != _MATRIX:
        raise ValueError(f"expected an array, found an element of type {kind}")
    if not data:
        return ()  # how MATLAB writes an empty array
    return _array(_Elements(data, inside.order), depth + 1)[1]


def _counted(count: int, inside: _Elements) -> range:
    """Return a range, after a check that so many arrays can be there."""
    if 8 * count > inside.left:
        raise ValueError(f"{count} arrays in {inside.left} bytes")
    return range(count)


def _fields(inside: _Elements) -> list[str]:
    """Return the names of the fields of a struct array."""
    (width,) = inside.numbers()
    names = inside.text()
    if width < 1 or len(names) % width:
        raise ValueError(f"names of fields of {width} letters in {len(names)} bytes")
    return [
        names[start : start + width].partition("\0")[0]
        for start in range(0, len(names), width)
    ]
