"""Domains: labelled images in a base, a validation and a novel split.

A class belongs to one split only. Images are stored as bytes and become normalised
tensors when they are read. An :class:`ImageCache` limits the memory of photographs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from l2l_evograd.checks import InputError
from l2l_evograd.data.glyphs import CLASSES, STYLES, GlyphSplit
from l2l_evograd.experiments.crossdomain.data.filelists import (
    SPLITS,
    FileList,
    ImageFiles,
    find_domains,
    read_filelist,
    smallest_side,
)
from l2l_evograd.experiments.crossdomain.data.image_cache import ImageCache

# Photographs are normalised as for ImageNet networks, drawings to the range −1 to 1.
PHOTOGRAPHS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DRAWINGS = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Dataset(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Labelled images of one split.

    Args:
        name: name of the domain and split, for messages.
        read: maps an index to an image as bytes, shape (3, H, W), dtype uint8.
        labels: class of each image, an index into ``label_names``.
        label_names: names of the classes; they may include classes of other splits.
        statistics: mean and standard deviation of the three channels.
        augment: maps an index to a randomly changed image with the same shape and
            dtype; None: the images must not be changed.
        files: the file of each image; empty if the images are drawn.

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
        files: Sequence[Path] = (),
    ) -> None:
        self.name = name
        self._files = files
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
        """Return an image as bytes, to be shown to the user."""
        return self._read(index)

    def augmented(self) -> "Dataset":
        """Return the same data set with randomly changed images.

        Each time an image is read, its changes are drawn from torch's global generator
        on the CPU. The caller seeds it; see :func:`~l2l_evograd.seeds.seeded`.

        Raises:
            InputError: if the images must not be changed.
        """
        if self._augment is None:
            raise InputError(
                f"augmentation is for photographs, but {self.name} has drawn images: "
                f"turn augmentation off, or give a folder of photographs"
            )
        return Dataset(
            self.name,
            self._augment,
            self.labels,
            self.label_names,
            self._statistics,
            self._augment,
            self._files,
        )

    def description(self) -> list[Any]:
        """Return what tells the data from others: labels, sizes of files, five images.

        It is not the content of every file, because that would take minutes.

        Raises:
            InputError: if one of the five images cannot be opened.
        """
        last = len(self) - 1
        shown = sorted({last * part // 4 for part in range(5)})
        sizes = [
            path.stat().st_size if path.is_file() else None for path in self._files
        ]
        return [
            *(self.name, self.labels, self.label_names, sizes),
            *(self._read(index) for index in shown),
        ]


@dataclass(frozen=True)
class Domain:
    """A domain.

    Attributes:
        name: name on the command line.
        splits: maps "base", "val" and "novel" to a data set.
    """

    name: str
    splits: Mapping[str, Dataset]


def built_in_domains(
    image_size: int = 32, seed: int = 0, images_per_class: int = 30
) -> dict[str, Domain]:
    """Return the five domains of glyphs. The base domain "print" is the first.

    Args:
        image_size: side in pixels, at least 16.
        seed: seed of the drawings; the same seed draws the same images.
        images_per_class: number of images of each class in each domain.

    Cost: about 1 ms for each image. A split is drawn when its first image is read.
    """
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
    root: str | Path, image_size: int, cache: ImageCache | None = None
) -> dict[str, Domain]:
    """Return the domains in a folder of file lists.

    The lists are ``root/NAME/{base,val,novel}.json``; see :mod:`~.filelists`.

    Args:
        root: the folder.
        image_size: side of the returned images, in pixels.
        cache: cache for decoded images; None: a cache of 2 GiB for all domains.

    Raises:
        InputError: if a file is missing or malformed; the message names it.
    """
    if cache is None:
        cache = ImageCache()
    domains = {}
    for name, files in find_domains(Path(root)).items():
        lists = {split: read_filelist(files[split]) for split in SPLITS}
        domains[name] = listed_domain(name, lists, image_size, cache)
    return domains


def listed_domain(
    name: str,
    lists: Mapping[str, FileList],
    image_size: int,
    cache: ImageCache | None = None,
) -> Domain:
    """Return a domain of photographs, which may be augmented.

    Args:
        name: name of the domain.
        lists: maps "base", "val" and "novel" to a file list.
        image_size: side of the returned images, in pixels.
        cache: cache for decoded images; None: a cache of 2 GiB for this domain.
    """
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
            listed.paths,
        )
    return Domain(name, splits)


# Side in pixels that the literature uses for photographs.
_PHOTOGRAPH_SIZES = {"cnn4": 84, "conv4": 84, "conv6": 84}
_RESNET_SIZE = 224
_BUILT_IN_SIZE = 24


def usual_image_size(backbone: str, root: Path | None) -> int:
    """Return the default side of the images, in pixels.

    The side is 24 for the built-in glyphs. For photographs, it is 84 (convolutional
    encoders) or 224 (ResNets), or the images' own size if that is smaller, because
    enlarging adds cost but no detail. The function looks only at the first image of
    each domain, because opening all images would take as long as the training.

    Args:
        backbone: name of the encoder.
        root: folder of domains as file lists; None: the built-in glyphs.

    Raises:
        InputError: for a folder or an image that cannot be read.
    """
    if root is None:
        return _BUILT_IN_SIZE
    own = min(
        smallest_side(read_filelist(files["base"]))
        for files in find_domains(root).values()
    )
    return min(_PHOTOGRAPH_SIZES.get(backbone, _RESNET_SIZE), own)
