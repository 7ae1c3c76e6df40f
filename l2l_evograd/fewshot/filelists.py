"""The file-list layout of the cross-domain benchmark.

``ROOT/NAME/{base,val,novel}.json``, each an object with three keys: ``label_names``, a
list of all class names; ``image_names``, a list of paths, absolute or relative to the
JSON file; ``image_labels``, for each image an index into ``label_names``.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import v2

KEYS = ("label_names", "image_names", "image_labels")
_SPLITS = ("base", "val", "novel")

# Larger images are resized to this multiple of the side, then cut, as in the benchmark.
_MARGIN = 1.15

# What Pillow raises for files that are no image, cut short or larger than it accepts.
_UNREADABLE = (
    UnidentifiedImageError,
    OSError,
    SyntaxError,
    Image.DecompressionBombError,
)


class FileList(NamedTuple):
    """What a file list says.

    Attributes:
        source: the JSON file.
        paths: of the images.
        labels: of the images.
        label_names: of the classes.
    """

    source: Path
    paths: list[Path]
    labels: list[int]
    label_names: list[str]


def find_domains(root: Path) -> dict[str, dict[str, Path]]:
    """Return name -> split -> JSON file for every domain in ``root``, sorted.

    Raises:
        FileNotFoundError: if the folder, or a split of a domain, is missing.
        ValueError: if there is no domain.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"expected a folder of domains, found none at {root}; give the folder that "
            f"holds NAME/base.json, NAME/val.json and NAME/novel.json"
        )
    found = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        files = {split: folder / f"{split}.json" for split in _SPLITS}
        missing = [file.name for file in files.values() if not file.is_file()]
        if len(missing) == len(_SPLITS):
            continue  # some other folder
        if missing:
            raise FileNotFoundError(
                f"expected base.json, val.json and novel.json in {folder}, "
                f"{' and '.join(missing)} missing"
            )
        found[folder.name] = files
    if not found:
        raise ValueError(
            f"expected domains in {root}, found no folder with base.json, val.json and "
            f"novel.json; unpack the data there or give the folder above the domains"
        )
    return found


def read_filelist(path: Path) -> FileList:
    """Read and check one JSON file; images are not opened.

    Raises:
        ValueError: naming the file and what is wrong with it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is no JSON: line {error.lineno}, {error.msg}"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no JSON: it is not text in UTF-8") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"expected {path} to hold an object with {', '.join(KEYS)}, got a "
            f"{type(content).__name__}"
        )
    for key in KEYS:
        if not isinstance(content.get(key), list):
            raise ValueError(f"expected a list under {key!r} in {path}, got none")
    names, images, labels = (content[key] for key in KEYS)
    if len(images) != len(labels):
        raise ValueError(
            f"expected as many image_labels as image_names in {path}, got "
            f"{len(labels)} and {len(images)}"
        )
    if not images:
        raise ValueError(f"expected images in {path}, got an empty list")
    for label in labels:
        _check_label(label, len(names), path)
    return FileList(
        path,
        [path.parent / str(image) for image in images],
        [int(label) for label in labels],
        [str(name) for name in names],
    )


class ImageFiles:
    """Images of a file list, opened when first read and then kept as bytes.

    Args:
        listed: the file list.
        image_size: side of what is returned; larger images are resized to 1.15 times
            that and cut, smaller ones resized, those of that size left alone.

    Cost: memory of 3 · image_size² bytes for each image read.
    """

    def __init__(self, listed: FileList, image_size: int) -> None:
        self._listed = listed
        self._size = image_size
        self._kept: dict[int, Tensor] = {}
        self._fit = v2.Compose(
            [
                v2.Resize(round(_MARGIN * image_size), antialias=True),
                v2.CenterCrop(image_size),
            ]
        )
        self._enlarge = v2.Resize((image_size, image_size), antialias=True)

    def image(self, index: int) -> Tensor:
        """Return an image, shape (3, image_size, image_size), dtype uint8.

        Raises:
            ValueError: if the file is missing or does not open, naming it.
        """
        if index not in self._kept:
            self._kept[index] = self._sized(self._open(self._listed.paths[index]))
        return self._kept[index]

    def _open(self, path: Path) -> Tensor:
        try:
            with Image.open(path) as image:
                pixels = image.convert("RGB").tobytes()
                width, height = image.size
        except FileNotFoundError as error:
            raise ValueError(
                f"the image {path} does not exist; it is listed in "
                f"{self._listed.source}"
            ) from error
        except _UNREADABLE as error:
            raise ValueError(
                f"the image {path} does not open ({error}); it is listed in "
                f"{self._listed.source}"
            ) from error
        flat = torch.frombuffer(bytearray(pixels), dtype=torch.uint8)
        return flat.view(height, width, 3).permute(2, 0, 1).contiguous()

    def _sized(self, image: Tensor) -> Tensor:
        height, width = image.shape[1:]
        if (height, width) == (self._size, self._size):
            return image
        fit = self._fit if min(height, width) >= self._size else self._enlarge
        sized: Tensor = fit(image)
        return sized


def smallest_side(listed: FileList) -> int:
    """Return the shorter side of the first image, in pixels.

    Raises:
        ValueError: as :meth:`ImageFiles.image`.
    """
    image = ImageFiles(listed, 1)._open(listed.paths[0])
    return min(image.shape[1:])


def _check_label(label: Any, classes: int, path: Path) -> None:
    whole = isinstance(label, int) and not isinstance(label, bool)
    if not whole or not 0 <= label < classes:
        raise ValueError(
            f"expected every image_labels entry of {path} to be a whole number from 0 "
            f"to {classes - 1}, an index into label_names, got {label!r}"
        )
