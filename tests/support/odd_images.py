"""Images of many kinds, as their files have them."""

import functools
import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

# Format, mode of the pixels, and options with which Pillow writes them.
KINDS = [
    *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    *(("JPEG", mode, {}) for mode in ("L", "RGB", "CMYK")),
    ("JPEG", "RGB", {"progressive": True}),
    *(("GIF", mode, {}) for mode in ("1", "L", "P")),
    *(("BMP", mode, {}) for mode in ("1", "L", "P", "RGB")),
    *(("TIFF", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16")),
    *(
        ("TIFF", "RGB", {"compression": packing})
        for packing in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
    ),
    ("TIFF", "1", {"compression": "group4"}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    *(("PPM", mode, {}) for mode in ("1", "L", "RGB", "I;16")),
]


def picture(chance: random.Random, mode: str, side: int = 24) -> Image.Image:
    """Return an image with areas and with noise."""
    random_numbers = np.random.default_rng(chance.randrange(2**32))
    coarse = random_numbers.integers(0, 256, (4, 4, 4)).repeat(side // 4, 0)
    values = coarse.repeat(side // 4, 1)
    values[: side // 2] ^= random_numbers.integers(0, 16, (side // 2, side, 4))
    values = values.astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(257 * values[:, :, 0].astype(np.uint16))
    if mode in ("1", "L", "P"):
        return Image.fromarray(values[:, :, 0]).convert(mode)
    if mode == "LA":
        return Image.fromarray(np.ascontiguousarray(values[:, :, :2]), "LA")
    return Image.fromarray(values).convert(mode)


def written(chance: random.Random) -> tuple[str, bytes]:
    """Return an image as a file of some kind, and the ending of the file's name."""
    form, mode, options = chance.choice(KINDS)
    file = io.BytesIO()
    picture(chance, mode).save(file, form, **options)
    return form.lower(), file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    return (
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", zlib.crc32(kind + data))
    )


def png(width: int, height: int, depth: int, colour: int, *chunks: bytes) -> bytes:
    """Return a PNG file with these chunks after its header."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def rows(values: np.ndarray) -> bytes:
    """Return the chunk of a PNG file for pixels of shape (H, W)."""
    lines = b"".join(b"\0" + line.tobytes() for line in values)
    return chunk(b"IDAT", zlib.compress(lines))


def tiff(
    values: np.ndarray, order: str, bits: int, meaning: int, kind: int = 1
) -> bytes:
    """Return a grey TIFF file, uncompressed.

    Args:
        values: pixels, shape (H, W), as they are to be stored.
        order: "<" or ">".
        bits: bits of a pixel.
        meaning: 0 if 0 is white, 1 if it is black.
        kind: 1 for whole numbers, 2 for those with a sign, 3 for fractions.
    """
    data = values.tobytes()
    height, width = values.shape
    width = width * 8 * values.itemsize // bits
    tags = [
        *((256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1)),
        *((262, 3, meaning), (273, 4, 8), (277, 3, 1), (278, 3, height)),
        *((279, 4, len(data)), (339, 3, kind)),
    ]
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, code, 1)
        + (
            struct.pack(f"{order}HH", value, 0)
            if code == 3
            else struct.pack(f"{order}I", value)
        )
        for tag, code, value in tags
    )
    start = {"<": b"II*\0", ">": b"MM\0*"}[order]
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    return start + struct.pack(f"{order}I", 8 + len(data)) + data + directory


@functools.cache
def _zeros() -> bytes:
    return zlib.compress(bytes(2**26), 9)


def bombs() -> dict[str, Callable[[], bytes]]:
    """Return files that are small and would take much memory, by what they are."""
    zeros = _zeros()
    pixel = chunk(b"IDAT", zlib.compress(b"\0\0"))
    return {
        "pixels": lambda: png(60_000, 60_000, 8, 2, chunk(b"IDAT", zeros)),
        "one row": lambda: png(2**31 - 1, 1, 8, 0, chunk(b"IDAT", zeros)),
        "text": lambda: png(1, 1, 8, 0, chunk(b"zTXt", b"a\0\0" + zeros), pixel),
        "texts": lambda: png(
            *(1, 1, 8, 0),
            *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20 - 9)))] * 99,
            pixel,
        ),
        "profile": lambda: png(1, 1, 8, 0, chunk(b"iCCP", b"a\0\0" + zeros), pixel),
        "language": lambda: png(
            1, 1, 8, 0, chunk(b"iTXt", b"a\0\1\0\0\0" + zeros), pixel
        ),
        "chunks": lambda: png(1, 1, 8, 0, *[chunk(b"tEXt", b"a\0b")] * 150_000, pixel),
        "screen": lambda: (
            b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\0;"
        ),
        "grey": lambda: b"P5 99999 99999 255\n" + bytes(100),
        "digits": lambda: b"P2 " + b"9" * 5000 + b" 2 255\n1 2",
        "bitmap": lambda: (
            b"BM"
            + struct.pack(
                "<IIIIiiHHIIIIII", 58, 0, 54, 40, 2**31 - 1, 2, 1, 24, *[0] * 6
            )
        ),
        "entries": lambda: (
            b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 256, 4, 2**31, 8)
        ),
        "web": lambda: (
            b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + 6 * b"\xff" + bytes(4)
        ),
    }
