"""Digits for the rotation problem, from MNIST's files or built in.

All images are light on dark, 28 x 28 pixels, as in MNIST. The training images are
upright. The validation and test images are turned counter-clockwise by 30 degrees.
"""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import rotate

from l2l_evograd.checks import InputError
from l2l_evograd.data.folders import is_folder, is_there
from l2l_evograd.data.glyphs import glyph_mask
from l2l_evograd.data.regular_files import open_regular

SIDE = 28
ANGLE = 30.0

_IMAGES, _LABELS = 2051, 2049  # the magic numbers of the IDX format
_BUILT_IN_PER_CLASS = 500

# MNIST's largest file has 47 MB. More than this is not read into memory.
_LARGEST = 2**31
_BLOCK = 2**20


class Digits(NamedTuple):
    """Labelled images.

    Attributes:
        images: values 0 to 1, shape (N, 1, 28, 28), float32.
        labels: 0 to 9, shape (N,).
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return N, not the number of fields."""
        return len(self.labels)


class DigitSplits(NamedTuple):
    """Digits for training, validation and test.

    Attributes:
        train: upright digits.
        validation: digits turned by 30 degrees.
        test: digits turned by 30 degrees.
        source: where the digits come from; shown to the user.
    """

    train: Digits
    validation: Digits
    test: Digits
    source: str


def drawn_digits() -> tuple[Tensor, Tensor]:
    """Draw 5,000 upright digits in the eight fonts that matplotlib ships.

    Every call returns the same digits, sorted by class. Each digit has its own size and
    position and is turned by up to 14 degrees to either side.

    Returns:
        Bytes of shape (N, 28, 28), light on dark, and labels of shape (N,).
    """
    random = np.random.default_rng(0)
    drawn = [
        glyph_mask(str(digit), SIDE, random, "print")
        for digit in range(10)
        for _ in range(_BUILT_IN_PER_CLASS)
    ]
    images = torch.from_numpy(np.round(255 * np.stack(drawn)).astype(np.uint8))
    labels = torch.arange(10).repeat_interleave(_BUILT_IN_PER_CLASS)
    return images, labels


def built_in_digits() -> DigitSplits:
    """Return :func:`drawn_digits`: 3,000 to train, 1,000 to validate, 1,000 to test."""
    return _shuffled_splits(*drawn_digits(), "built-in digits")


def read_digits(folder: Path) -> DigitSplits:
    """Return the digits of MNIST's files, as torchvision keeps them or packed (.gz).

    If the training files exist, their first four sixths are for training and their
    last sixth is for validation, as in the paper's released notebook; the test files
    are for the test. If there are only the test files, their digits are shuffled,
    always in the same order, and divided into 60, 20 and 20 %.

    Args:
        folder: contains ``[train-|t10k-]images-idx3-ubyte[.gz]`` and the labels,
            directly or in its sub-folder ``MNIST/raw``.

    Raises:
        InputError: if the test images or labels are missing, or if files are cut
            short, are not IDX files, or do not belong together.
    """
    if not is_folder(folder):
        raise InputError(f"expected a folder with MNIST's files, got {folder}")
    raw = folder / "MNIST" / "raw"
    place = raw if is_folder(raw) else folder
    images, labels = read_pair(place, "t10k")
    if find_idx(place, "train-images-idx3-ubyte") is None:
        return _shuffled_splits(images, labels, f"the test digits in {folder}")
    train_images, train_labels = read_pair(place, "train")
    count = len(train_labels)
    _check_enough(min(count, len(labels)), place)
    first, last = count * 4 // 6, count * 5 // 6
    return DigitSplits(
        _digits(train_images[:first], train_labels[:first]),
        _digits(train_images[last:], train_labels[last:], ANGLE),
        _digits(images, labels, ANGLE),
        str(folder),
    )


def _shuffled_splits(images: Tensor, labels: Tensor, source: str) -> DigitSplits:
    count = len(labels)
    _check_enough(count, source)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    train, validation, test = order.split(
        [count - 2 * (count // 5), count // 5, count // 5]
    )
    return DigitSplits(
        _digits(images[train], labels[train]),
        _digits(images[validation], labels[validation], ANGLE),
        _digits(images[test], labels[test], ANGLE),
        source,
    )


def _check_enough(count: int, source: object) -> None:
    if count < 50:
        raise InputError(f"expected at least 50 digits, got {count} from {source}")


def _digits(images: Tensor, labels: Tensor, angle: float = 0.0) -> Digits:
    if angle:
        images = rotate(images, angle)
    return Digits(images[:, None].float() / 255, labels.long())


def read_pair(folder: Path, name: str) -> tuple[Tensor, Tensor]:
    """Return the images and labels of two of MNIST's files, upright.

    Args:
        folder: the folder with the files.
        name: ``"train"`` or ``"t10k"``.

    Returns:
        Bytes of shape (N, 28, 28) and labels of shape (N,).

    Raises:
        InputError: for files that are missing, damaged or do not belong together.
    """
    images = _read(folder, f"{name}-images-idx3-ubyte", _IMAGES)
    labels = _read(folder, f"{name}-labels-idx1-ubyte", _LABELS)
    if images.shape[1:] != (SIDE, SIDE):
        raise InputError(
            f"expected digits of {SIDE} x {SIDE} pixels, got "
            f"{images.shape[1]} x {images.shape[2]} in {folder}"
        )
    if len(images) != len(labels):
        raise InputError(
            f"expected one label for each of the {len(images)} {name} images in "
            f"{folder}, got {len(labels)}"
        )
    if len(labels) and int(labels.max()) > 9:
        raise InputError(
            f"expected labels 0 to 9 in {folder}, got {int(labels.max())} among the "
            f"{name} labels"
        )
    return images, labels


def find_idx(folder: Path, name: str) -> Path | None:
    """Return the path of one of MNIST's files, packed or not; None if it is missing."""
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if is_there(path)), None)


def _read(folder: Path, name: str, magic: int) -> Tensor:
    """Return the data of an IDX file: a magic number, sizes and bytes, big-endian."""
    path = find_idx(folder, name)
    if path is None:
        raise InputError(
            f"expected MNIST's file {name} or {name}.gz in {folder}, found neither"
        )
    axes = magic % 256
    with open_regular(path) as file:
        packed = path.suffix == ".gz"
        try:
            if packed:
                with gzip.GzipFile(fileobj=file) as unpacked:
                    shape, content = _parts(unpacked, path, magic, axes)
            else:
                length = os.fstat(file.fileno()).st_size
                shape, content = _parts(file, path, magic, axes, length)
        except (EOFError, OSError, zlib.error) as error:
            what = "not a gzip file" if packed else "cannot be read"
            raise InputError(f"{path} is cut short or {what}: {error}") from error
    return torch.from_numpy(np.frombuffer(content, np.uint8).reshape(shape))


def _parts(
    file: IO[bytes] | gzip.GzipFile,
    path: Path,
    magic: int,
    axes: int,
    length: int | None = None,
) -> tuple[tuple[int, ...], bytearray]:
    """Return the sizes in the header of an IDX file, and the bytes after it.

    Args:
        file: the file, unpacked.
        path: its path, for messages.
        magic: the number with which it must begin.
        axes: number of sizes.
        length: number of its bytes; None: it is not known before they are read.

    Raises:
        InputError: if the header is not that of such a file, or if there are more or
            fewer bytes than it says. No more of them are read than it says.
    """
    header = file.read(4 * (1 + axes))
    if len(header) < 4 * (1 + axes) or struct.unpack(">I", header[:4])[0] != magic:
        raise InputError(
            f"{path} is not an IDX file of {'images' if axes == 3 else 'labels'}: "
            f"expected it to begin with the number {magic}"
        )
    shape = struct.unpack(f">{axes}I", header[4:])
    expected = math.prod(shape)
    if expected > _LARGEST:
        raise InputError(
            f"{path} is damaged or too large: expected at most {_LARGEST:,} bytes, its "
            f"header says {expected:,}"
        )
    got = None if length is None else length - len(header)
    content = bytearray()
    if got in (None, expected):
        while block := file.read(min(_BLOCK, expected + 1 - len(content))):
            content += block
        got = len(content)
    if got != expected:
        more = " or more" if len(content) > expected else ""
        raise InputError(
            f"{path} is cut short or damaged: expected {expected} bytes after its "
            f"header, got {got}{more}"
        )
    return shape, content
