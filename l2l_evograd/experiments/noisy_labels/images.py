"""Images with labels, stored as bytes in one tensor. CIFAR's 60,000 take 184 MB."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from l2l_evograd.checks import InputError


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
            raise InputError(
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
        """Return some of the images, with ``labels`` in place of theirs if given."""
        own = self.labels[indices] if labels is None else labels
        return LabelledImages(self.images[indices], own)

    def statistics(self) -> tuple[list[float], list[float]]:
        """Return the mean and standard deviation of each channel, on a 0-255 scale."""
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
class ImageSource:
    """A training set, a test set, and the names of their classes.

    Attributes:
        name: name that is shown to the user.
        train: training images with true labels.
        test: test images with true labels.
        classes: name of each class.
        shift: largest number of pixels by which training images may be shifted.
        mirrored: whether a mirrored image still belongs to its class.
    """

    name: str
    train: LabelledImages
    test: LabelledImages
    classes: Sequence[str]
    shift: int = 4
    mirrored: bool = True
