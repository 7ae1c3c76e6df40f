"""The images of the schedules experiment: for training, validation and test."""

from typing import NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from l2l_evograd.checks import InputError
from l2l_evograd.data.digits import drawn_digits, find_idx, read_pair
from l2l_evograd.data.folders import given_path, is_folder
from l2l_evograd.experiments.noisy_labels.files import read_files

# Side of the images from a folder, that of CIFAR.
_FOLDER_SIDE = 32

# Fewer images say nothing about a schedule.
_LEAST = 50


class Images(NamedTuple):
    """Labelled images.

    Attributes:
        pixels: bytes, shape (N, C, H, W), dtype uint8.
        labels: classes, shape (N,), dtype int64.
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return N, not the number of fields."""
        return len(self.labels)

    def of(self, indices: Tensor) -> "Images":
        """Return some of the images."""
        return Images(self.pixels[indices], self.labels[indices])


class Splits(NamedTuple):
    """Images for three purposes. No image is in two of them.

    Attributes:
        source: where the images come from; shown to the user.
        classes: number of classes.
        train: images of the inner loss.
        validation: images of the outer loss, which the search sees.
        test: images that only found schedules are tested on.
    """

    source: str
    classes: int
    train: Images
    validation: Images
    test: Images

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of the images."""
        return tuple(self.train.pixels.shape[1:])


def read_splits(data: str | None, console: Console) -> Splits:
    """Return the images.

    Images without a division of their own, the built-in digits and MNIST's test files
    alone, are shuffled and divided into 40 % for training, 20 % for validation and 40 %
    for the test. Otherwise one sixth of the training images is for validation. Every
    call divides them in the same way.

    Args:
        data: a folder with MNIST's files, packed (.gz) or not, directly or in its
            sub-folder ``MNIST/raw``; the test files are enough. Or a folder as for
            :func:`~l2l_evograd.experiments.noisy_labels.files.read_files`. None: 5,000
            built-in digits, light on dark, in several fonts.
        console: console for the progress bar.

    Raises:
        InputError: for files that are missing or damaged, or too few images.

    Cost: two seconds for the built-in digits. All images stay in memory as bytes.
    """
    if data is None:
        return _divided("built-in digits", _images(*drawn_digits()), None)
    folder = given_path(data)
    if not is_folder(folder):
        raise InputError(
            f"expected a folder with MNIST's files or with train/<class> and "
            f"test/<class>, got {folder}"
        )
    raw = folder / "MNIST" / "raw"
    place = raw if is_folder(raw) else folder
    if any(find_idx(place, f"{part}-images-idx3-ubyte") for part in ("t10k", "train")):
        test = _images(*read_pair(place, "t10k"))
        if find_idx(place, "train-images-idx3-ubyte") is None:
            return _divided(f"the test digits in {folder}", test, None)
        return _divided(str(folder), _images(*read_pair(place, "train")), test)
    found = read_files(folder, _FOLDER_SIDE, console)
    train, test = (
        Images(part.images, part.labels) for part in (found.train, found.test)
    )
    return _divided(found.name, train, test)


def _images(pixels: Tensor, labels: Tensor) -> Images:
    return Images(pixels[:, None], labels.long())


def _divided(source: str, images: Images, test: Images | None) -> Splits:
    count = len(images)
    if min(count, count if test is None else len(test)) < _LEAST:
        raise InputError(
            f"expected at least {_LEAST} images for training and test, got {count}"
            + ("" if test is None else f" and {len(test)}")
            + f" from {source}"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    if test is None:
        first, second = 2 * count // 5, 3 * count // 5
        test = images.of(order[second:])
        order = order[:second]
    else:
        first = count - count // 6
    classes = 1 + int(torch.cat([images.labels, test.labels]).max())
    return Splits(
        source, classes, images.of(order[:first]), images.of(order[first:]), test
    )
