"""Domains: labelled images in a base, a validation and a novel split.

Classes of one split occur in no other. Images are kept as bytes, photographs within a
limit of memory, and become normalised tensors when they are read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from l2l_evograd.fewshot.filelists import FileList
    from l2l_evograd.fewshot.image_cache import ImageCache

SPLITS = ("base", "val", "novel")

# Photographs are normalised as networks for ImageNet expect, drawings to −1..1.
PHOTOGRAPHS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DRAWINGS = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Dataset(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Labelled images of one split.

    Args:
        name: of the domain and split, for messages.
        read: index -> image as bytes, shape (3, H, W), dtype uint8.
        labels: class of each image, an index into ``label_names``.
        label_names: names of the classes; classes of other splits may be among them.
        statistics: mean and standard deviation of the three channels.
        augment: index -> the image changed at random, of the same shape and dtype;
            None: the images are not to be changed.

    Attributes:
        labels, label_names: as given.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[int], Tensor],
        labels: Sequence[int],
        label_names: Sequence[str],
        statistics: tuple[Sequence[float], Sequence[float]] = DRAWINGS,
        augment: Callable[[int], Tensor] | None = None,
    ) -> None:
        self.name = name
        self.labels = list(labels)
        self.label_names = list(label_names)
        self._read = read
        self._augment = augment
        self._statistics = statistics
        mean, deviation = statistics
        self._mean = 255 * torch.tensor(mean).view(3, 1, 1)
        self._scale = 1 / (255 * torch.tensor(deviation).view(3, 1, 1))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a normalised image, shape (3, H, W), and its label."""
        image = (self._read(index) - self._mean) * self._scale
        return image, self.labels[index]

    def picture(self, index: int) -> Tensor:
        """Return an image as bytes, for people to look at."""
        return self._read(index)

    def augmented(self) -> "Dataset":
        """Return the same data set with images that are changed at random.

        Each reading of an image draws anew from torch's global generator of the CPU,
        which the caller seeds, see :func:`~l2l_evograd.runs.randomness.seeded`.

        Raises:
            ValueError: if its images are not to be changed.
        """
        if self._augment is None:
            raise ValueError(
                f"augmentation is for photographs, and {self.name} is drawn: leave it "
                f"off, or give a folder of photographs"
            )
        return Dataset(
            self.name,
            self._augment,
            self.labels,
            self.label_names,
            self._statistics,
            self._augment,
        )


@dataclass(frozen=True)
class Domain:
    """A domain.

    Attributes:
        name: as on the command line.
        splits: "base", "val" and "novel" -> data set.
    """

    name: str
    splits: Mapping[str, Dataset]


def built_in_domains(
    image_size: int = 32, seed: int = 0, images_per_class: int = 30
) -> dict[str, Domain]:
    """Return the five domains of glyphs; "print", the base domain, comes first.

    Args:
        image_size: side in pixels, at least 16.
        seed: of the drawing; the same seed draws the same images.
        images_per_class: of each class in each domain.

    Cost: a split is drawn when its first image is read, about 1 ms for an image.
    """
    from l2l_evograd.fewshot.glyphs import CLASSES, STYLES, GlyphSplit

    domains = {}
    for style in STYLES:
        splits = {}
        for split in SPLITS:
            drawn = GlyphSplit(style, split, image_size, seed, images_per_class)
            labels = [c for c in range(len(CLASSES[split])) for _ in drawn.copies]
            name = f"{style}/{split}"
            splits[split] = Dataset(name, drawn.image, labels, CLASSES[split])
        domains[style] = Domain(style, splits)
    return domains


def read_domains(
    root: str | Path, image_size: int, cache: "ImageCache | None" = None
) -> dict[str, Domain]:
    """Return the domains in a folder of file lists.

    ``root/NAME/{base,val,novel}.json``; see :mod:`l2l_evograd.fewshot.filelists`.

    Args:
        root: the folder.
        image_size: side of the images returned, in pixels.
        cache: where decoded images are kept; None: one of 2 GiB for all domains.

    Raises:
        FileNotFoundError, ValueError: naming what is missing or malformed.
    """
    from l2l_evograd.fewshot.filelists import find_domains, read_filelist
    from l2l_evograd.fewshot.image_cache import ImageCache

    if cache is None:
        cache = ImageCache()
    domains = {}
    for name, files in find_domains(Path(root)).items():
        lists = {split: read_filelist(files[split]) for split in SPLITS}
        domains[name] = listed_domain(name, lists, image_size, cache)
    return domains


def listed_domain(
    name: str,
    lists: Mapping[str, "FileList"],
    image_size: int,
    cache: "ImageCache | None" = None,
) -> Domain:
    """Return a domain of photographs, which may be augmented.

    Args:
        name: of the domain.
        lists: "base", "val" and "novel" -> file list.
        image_size: side of the images returned, in pixels.
        cache: where decoded images are kept; None: one of 2 GiB for this domain.
    """
    from l2l_evograd.fewshot.filelists import ImageFiles
    from l2l_evograd.fewshot.image_cache import ImageCache

    if cache is None:
        cache = ImageCache()
    splits = {}
    for split, listed in lists.items():
        files = ImageFiles(listed, image_size, cache)
        splits[split] = Dataset(
            f"{name}/{split}",
            files.image,
            listed.labels,
            listed.label_names,
            PHOTOGRAPHS,
            files.augmented,
        )
    return Domain(name, splits)
