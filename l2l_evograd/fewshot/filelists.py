"""The file-list layout of the cross-domain benchmark.

``ROOT/NAME/{base,val,novel}.json``, each an object with three keys: ``label_names``, a
list of all class names; ``image_names``, a list of paths, absolute or relative to the
JSON file; ``image_labels``, for each image an index into ``label_names``.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import v2

from l2l_evograd.fewshot.augmentation import Augmentation
from l2l_evograd.fewshot.image_cache import ImageCache

KEYS = ("label_names", "image_names", "image_labels")
_SPLITS = ("base", "val", "novel")

# Larger images are resized to this multiple of the side, then cut, as in the benchmark.
_MARGIN = 1.15

# For augmentation images are kept with a shorter side of at most this multiple.
_ROOM = 2

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
    """Images of a file list, opened when first read and then kept in a cache.

    Two forms of an image are kept, each from when it is first asked for: cut to size,
    and for augmentation whole, with a shorter side of at most twice the size. The
    published benchmark cuts its random parts from the file's own pixels. Here this
    holds for files within that bound. Of a larger file, parts are resized twice, and
    those of fewer than image_size² kept pixels come out less sharp: about one part in
    five of a square image, fewer of others.

    Args:
        listed: the file list.
        image_size: side of what is returned; larger images are resized to 1.15 times
            that and cut, smaller ones resized, those of that size left alone.
        cache: where they are kept, also by others; None: one of its own, of 2 GiB.

    Cost: in the cache 3 · image_size² bytes for an image cut to size; for a whole one
    3 · height · width, at most 12 · image_size² if it is square.
    """

    def __init__(
        self, listed: FileList, image_size: int, cache: ImageCache | None = None
    ) -> None:
        self._listed = listed
        self._size = image_size
        self._cache = ImageCache() if cache is None else cache
        self._augment = Augmentation(image_size)
        self._fit = v2.Compose(
            [
                v2.Resize(round(_MARGIN * image_size), antialias=True),
                v2.CenterCrop(image_size),
            ]
        )
        self._enlarge = v2.Resize((image_size, image_size), antialias=True)
        self._reduce = v2.Resize(_ROOM * image_size, antialias=True)

    def image(self, index: int) -> Tensor:
        """Return an image, shape (3, image_size, image_size), dtype uint8.

        Raises:
            ValueError: if the file is missing or does not open, naming it.
        """
        return self._kept(index, "cut", self._cut)

    def augmented(self, index: int) -> Tensor:
        """Return an image as :class:`Augmentation` changes it, shape as above.

        Draws from torch's global generator of the CPU.

        Raises:
            ValueError: as :meth:`image`.
        """
        return self._augment(self._kept(index, "whole", self._whole))

    def _kept(self, index: int, form: str, made: Callable[[Tensor], Tensor]) -> Tensor:
        path = self._listed.paths[index]

        def read() -> Tensor:
            # A part of a larger image would hold all of it in memory.
            return made(_opened(path, self._listed.source)).contiguous()

        return self._cache.get((path, self._size, form), read)

    def _cut(self, image: Tensor) -> Tensor:
        height, width = image.shape[1:]
        if (height, width) == (self._size, self._size):
            return image
        fit = self._fit if min(height, width) >= self._size else self._enlarge
        cut: Tensor = fit(image)
        return cut

    def _whole(self, image: Tensor) -> Tensor:
        if min(image.shape[1:]) <= _ROOM * self._size:
            return image
        whole: Tensor = self._reduce(image)
        return whole


def smallest_side(listed: FileList) -> int:
    """Return the shorter side of the first image, in pixels.

    Raises:
        ValueError: as :meth:`ImageFiles.image`.
    """
    return min(_opened(listed.paths[0], listed.source).shape[1:])


def _opened(path: Path, source: Path) -> Tensor:
    """Return an image of any size, shape (3, H, W), dtype uint8.

    Args:
        path: of the image.
        source: the list that it stands in, for messages.
    """
    try:
        with Image.open(path) as image:
            pixels = image.convert("RGB").tobytes()
            width, height = image.size
    except FileNotFoundError as error:
        raise ValueError(
            f"the image {path} does not exist; it is listed in {source}"
        ) from error
    except _UNREADABLE as error:
        raise ValueError(
            f"the image {path} does not open ({error}); it is listed in {source}"
        ) from error
    flat = torch.frombuffer(bytearray(pixels), dtype=torch.uint8)
    return flat.view(height, width, 3).permute(2, 0, 1).contiguous()


def _check_label(label: Any, classes: int, path: Path) -> None:
    whole = isinstance(label, int) and not isinstance(label, bool)
    if not whole or not 0 <= label < classes:
        raise ValueError(
            f"expected every image_labels entry of {path} to be a whole number from 0 "
            f"to {classes - 1}, an index into label_names, got {label!r}"
        )
