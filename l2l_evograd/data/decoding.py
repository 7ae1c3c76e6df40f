"""Images of the user: opened safely, checked before they are read, in eight bits."""

import contextlib
import logging
import os
import struct
import sys
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from l2l_evograd.checks import InputError
from l2l_evograd.data.regular_files import open_regular

# The formats that data sets have. Pillow's readers of many others are hardly tried.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")

# An image of this size takes 0.4 GB while it is read, and a conversion as much again.
MOST_PIXELS = 100_000_000
LARGEST_FILE = 2**28

# Without a handler, Pillow's records would be printed beside the error of this module.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_PNG = b"\x89PNG\r\n\x1a\n"
_MOST_CHUNKS = 100_000  # of a PNG file; the largest have some ten thousand
_BLOCK = 2**16
_LONGEST = 200  # letters of libtiff's text that are shown

# Modes that Pillow converts with black as 0 and white as 255.
_CONVERTED = frozenset(
    {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"}
)

# Tags of TIFF: bits of a pixel, and whether 0 is white.
_BITS, _MEANING, _ZERO_IS_WHITE = 258, 262, 0

# Pillow's readers raise all of these for files that are damaged or mean harm.
_UNREADABLE = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError),
    *(ArithmeticError, AttributeError, RuntimeError, MemoryError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)


def read_image(path: Path, mode: str = "RGB") -> Image.Image:
    """Return the image of a file; see :func:`decode`.

    Raises:
        InputError: if there is no such file, if it is not a regular file, or as in
            :func:`decode`. The message names the file.
    """
    with open_regular(path) as file:
        return decode(file, f"the image {path}", mode)


def decode(file: IO[bytes], name: str, mode: str = "RGB") -> Image.Image:
    """Return an image in eight bits, with black as 0 and white as 255.

    Of an animation this is the first picture. Transparency is left out, and so is the
    orientation that a camera noted, as in the benchmarks. Grey pixels of 12 or 16 bits
    become round(255 · value / largest value).

    Args:
        file: the open file, at its beginning.
        name: name of the image, for messages.
        mode: "RGB", or "L" for grey.

    Raises:
        InputError: if it is not an image in one of :data:`FORMATS`, if it is damaged,
            has more than :data:`MOST_PIXELS` pixels or :data:`LARGEST_FILE` bytes, or
            if its pixels do not say what is white.

    Cost: that of Pillow, and for PNG a second reading of the file for its checksums.
    """
    try:
        _check_length(file)
        _check_sums(file)
        # Pillow warns of what is refused here, and of what does not matter.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as picture:
                _check_pixels(picture)
                with _heard(picture):
                    picture.load()
                return _in_eight_bits(picture, mode)
    except Image.UnidentifiedImageError as error:
        raise InputError(
            f"{name} cannot be opened (cannot tell its format: it is damaged, or none "
            f"of {', '.join(FORMATS)})"
        ) from error
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name} cannot be opened ({reason})") from error


def images_of(count: int, channels: int, side: int) -> Tensor:
    """Return memory for images, shape (count, channels, side, side), dtype uint8.

    Raises:
        InputError: if there is not that much memory.
    """
    try:
        return torch.empty((count, channels, side, side), dtype=torch.uint8)
    except (RuntimeError, TypeError, OverflowError) as error:
        needed = count * channels * side**2 / 2**30
        raise InputError(
            f"not enough memory for {count:,} images of {side} x {side} pixels, which "
            f"take {needed:,.1f} GiB; choose smaller images (--image-size)"
        ) from error


def _check_length(file: IO[bytes]) -> None:
    size = file.seek(0, 2)
    file.seek(0)
    if size > LARGEST_FILE:
        raise ValueError(
            f"expected at most {LARGEST_FILE // 2**20} MiB, got {size // 2**20} MiB"
        )


def _check_sums(file: IO[bytes]) -> None:
    """Check the checksums of the pixels of a PNG file, which Pillow does not look at.

    Raises:
        ValueError: if one is wrong.
    """
    if file.read(len(_PNG)) == _PNG:
        for _ in range(_MOST_CHUNKS):
            head = file.read(8)
            if len(head) < 8 or head[4:] == b"IEND":
                break
            left, kind = struct.unpack(">I4s", head)
            checksum = zlib.crc32(kind)
            while left and (block := file.read(min(left, _BLOCK))):
                checksum = zlib.crc32(block, checksum)
                left -= len(block)
            stored = file.read(4)
            if kind == b"IDAT" and stored != struct.pack(">I", checksum):
                raise ValueError("a checksum of its pixels is wrong")
        else:
            raise ValueError(f"it has more than {_MOST_CHUNKS} chunks")
    file.seek(0)


@contextlib.contextmanager
def _heard(picture: Image.Image) -> Iterator[None]:
    """Listen to libtiff, which tells of errors on the standard error stream only.

    It goes on after some of them, with pixels that are not those of the image.

    Raises:
        ValueError: if it has found one in the body.
    """
    if all(tile[0] != "libtiff" for tile in getattr(picture, "tile", ())):
        yield
        return
    with tempfile.TemporaryFile() as said:
        with _in_place_of_standard_error(said.fileno()):
            yield
        said.seek(0)
        text = said.read(_LONGEST).decode(errors="replace")
    if text:
        raise ValueError(text)


@contextlib.contextmanager
def _in_place_of_standard_error(handle: int) -> Iterator[None]:
    """Let the standard error stream of this process be another file in the body."""
    try:
        before = os.dup(2)
    except OSError:  # this process has none
        yield
        return
    sys.stderr.flush()
    os.dup2(handle, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _check_pixels(picture: Image.Image) -> None:
    width, height = picture.size
    if not 1 <= width * height <= MOST_PIXELS:
        raise ValueError(
            f"expected 1 to {MOST_PIXELS:,} pixels, got {width:,} x {height:,}"
        )


def _in_eight_bits(picture: Image.Image, mode: str) -> Image.Image:
    """Return an image with eight bits for each channel.

    Raises:
        ValueError: if its pixels do not say what is white.
    """
    if picture.mode in _CONVERTED:
        return picture.convert(mode)
    whole = picture.mode == "I" and picture.format != "TIFF"
    if whole or picture.mode.startswith("I;16"):
        return Image.fromarray(_grey(picture), "L").convert(mode)
    raise ValueError(
        f"its pixels are of the kind {picture.mode!r}, for which it is not known what "
        f"is black and what is white; save it with 8 or 16 bits, in grey or RGB"
    )


def _grey(picture: Image.Image) -> np.ndarray:
    """Return pixels of up to 16 bits as bytes, rounded to the nearest."""
    tags = getattr(picture, "tag_v2", {})  # only TIFF has these
    largest = 2 ** tags.get(_BITS, (16,))[0] - 1
    values = np.asarray(picture).astype(np.int64)
    grey = (255 * values + largest // 2) // largest
    if tags.get(_MEANING) == _ZERO_IS_WHITE:
        grey = 255 - grey
    return grey.clip(0, 255).astype(np.uint8)
