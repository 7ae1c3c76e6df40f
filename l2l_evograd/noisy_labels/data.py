"""Images with labels: torchvision's CIFAR, any folder of images, and built-in glyphs.

All images of a set are kept as bytes in one tensor; 60,000 of CIFAR take 184 MB.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

# Of the built-in glyphs.
BUILT_IN_CLASSES = 10
BUILT_IN_SIZE = 20
_TRAIN_EACH, _TEST_EACH = 150, 60  # images of a class


class LabelledImages(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Images and labels in two tensors.

    Args:
        images: bytes, shape (N, 3, H, W), dtype uint8.
        labels: classes, shape (N,).

    Attributes:
        images, labels: as given.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        if len(images) != len(labels):
            raise ValueError(
                f"expected one label for each image, got {len(labels)} labels for "
                f"{len(images)} images"
            )
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image, shape (3, H, W), and its label."""
        return self.images[index], int(self.labels[index])

    def subset(self, indices: Tensor, labels: Tensor | None = None) -> "LabelledImages":
        """Return some of the images, with other labels if they are given."""
        own = self.labels[indices] if labels is None else labels
        return LabelledImages(self.images[indices], own)

    def statistics(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel, in bytes."""
        total = torch.zeros(3, dtype=torch.float64)
        squares = torch.zeros(3, dtype=torch.float64)
        for part in self.images.split(4096):
            values = part.double()
            total += values.mean((2, 3)).sum(0)
            squares += values.square().mean((2, 3)).sum(0)
        mean = total / len(self)
        deviation = (squares / len(self) - mean.square()).clamp_min(0).sqrt()
        return mean.tolist(), deviation.clamp_min(1.0).tolist()


@dataclass(frozen=True)
class Source:
    """A training set, a test set, and what their labels mean.

    Attributes:
        name: for people.
        train: with true labels.
        test: likewise.
        classes: names of the labels.
        shift: pixels that training images may be shifted by.
        mirrored: whether a class looks the same in a mirror.
    """

    name: str
    train: LabelledImages
    test: LabelledImages
    classes: Sequence[str]
    shift: int = 4
    mirrored: bool = True


def read_source(data: str | None, image_size: int | None, console: Console) -> Source:
    """Return the images to learn from.

    Args:
        data: a folder with torchvision's CIFAR-10 or CIFAR-100 (the one that holds
            ``cifar-10-batches-py`` or ``cifar-100-python``, or that itself), or one
            with ``train/<class>`` and ``test/<class>``; None: the built-in glyphs.
        image_size: side in pixels; None: 32, and 20 for the glyphs.
        console: of the progress bar.

    Raises:
        ValueError, FileNotFoundError: saying what was expected and is not there.
    """
    if data is None:
        return _glyphs(image_size or BUILT_IN_SIZE)
    from l2l_evograd.noisy_labels.files import read_files

    return read_files(Path(data).expanduser(), image_size or 32, console)


def _glyphs(image_size: int) -> Source:
    """Return ten glyphs in dark print, drawn in about four seconds."""
    from l2l_evograd.fewshot.glyphs import CLASSES, GlyphSplit

    sets = []
    for seed, each in enumerate((_TRAIN_EACH, _TEST_EACH)):
        drawn = GlyphSplit("print", "novel", image_size, seed, each)
        labels = torch.arange(BUILT_IN_CLASSES).repeat_interleave(each)
        images = torch.stack([drawn.image(i) for i in range(len(labels))])
        sets.append(LabelledImages(images, labels))
    names = CLASSES["novel"][:BUILT_IN_CLASSES]
    return Source("built-in glyphs", sets[0], sets[1], names, shift=2, mirrored=False)
