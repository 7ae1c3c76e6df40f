"""The file-list layout of the cross-domain benchmark.

The lists are ``ROOT/NAME/{base,val,novel}.json``. Each is an object with three keys:
``label_names``, a list of all class names; ``image_names``, a list of paths, absolute
or relative to the JSON file; ``image_labels``, for each image an index into
``label_names``.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms import v2

from l2l_evograd.checks import InputError
from l2l_evograd.data.decoding import read_image
from l2l_evograd.data.folders import folders_in, is_folder, is_there
from l2l_evograd.experiments.crossdomain.data.augmentation import Augmentation
from l2l_evograd.experiments.crossdomain.data.image_cache import ImageCache
from l2l_evograd.experiments.crossdomain.data.list_checks import (
    check_class,
    check_image,
    check_label,
    check_size,
)
from l2l_evograd.experiments.files import read_object

KEYS = ("label_names", "image_names", "image_labels")
# Splits of a domain. No two splits have the same class.
SPLITS = ("base", "val", "novel")

# Larger images are resized to this multiple of the side and then cropped, as in the
# benchmark.
_MARGIN = 1.15

# Side of photographs for learn2learn's networks, in pixels.
_LARGEST = 84

# Images for augmentation are cached with a shorter side of at most this multiple.
_ROOM = 2


class FileList(NamedTuple):
    """The content of a file list.

    Attributes:
        source: the JSON file.
        paths: path of each image.
        labels: label of each image.
        label_names: name of each class.
    """

    source: Path
    paths: list[Path]
    labels: list[int]
    label_names: list[str]


def find_domains(root: Path) -> dict[str, dict[str, Path]]:
    """Return the JSON file of each split of each domain in ``root``, sorted by name.

    Raises:
        InputError: if the folder, or a split of a domain, is missing; or if there is
            no domain.
    """
    if not is_folder(root):
        raise InputError(
            f"expected a folder of domains, found none at {root}; give the folder that "
            f"contains NAME/base.json, NAME/val.json and NAME/novel.json"
        )
    found = {}
    for folder in (root / name for name in folders_in(root)):
        files = {split: folder / f"{split}.json" for split in SPLITS}
        missing = [file.name for file in files.values() if not is_there(file)]
        if len(missing) == len(SPLITS):
            continue  # this folder is not a domain
        if missing:
            raise InputError(
                f"expected base.json, val.json and novel.json in {folder}, but "
                f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} "
                f"missing"
            )
        found[folder.name] = files
    if not found:
        raise InputError(
            f"expected domains in {root}, found no folder with base.json, val.json and "
            f"novel.json; unpack the data there or give the folder above the domains"
        )
    return found


def read_lists(folder: Path) -> dict[str, FileList]:
    """Return the list of each split of one domain. Images are not opened.

    Args:
        folder: the folder that contains base.json, val.json and novel.json.

    Raises:
        InputError: if a file is missing or malformed; the message names it.
    """
    missing = [f"{s}.json" for s in SPLITS if not is_there(folder / f"{s}.json")]
    if missing:
        raise InputError(
            f"expected base.json, val.json and novel.json in {folder}, but "
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        )
    return {split: read_filelist(folder / f"{split}.json") for split in SPLITS}


def read_filelist(path: Path) -> FileList:
    """Read and check one JSON file. Images are not opened.

    Raises:
        InputError: if the file is malformed, larger than the limits in
            :mod:`~.list_checks`; the message names the file and the fault.
    """
    return checked_list(path, read_object_of_list(path))


def read_object_of_list(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file that has the size of a file list.

    Raises:
        InputError: if it is not such a file, as in :func:`read_filelist`.
    """
    check_size(path)
    return read_object(path)


def checked_list(path: Path, content: Mapping[str, Any]) -> FileList:
    """Return the list in an object that a JSON file contains.

    Args:
        path: the file.
        content: the object.

    Raises:
        InputError: if it is malformed.
    """
    for key in KEYS:
        if not isinstance(content.get(key), list):
            raise InputError(f"expected a list under {key!r} in {path}, got none")
    names, images, labels = (content[key] for key in KEYS)
    if len(images) != len(labels):
        raise InputError(
            f"expected as many image_labels as image_names in {path}, got "
            f"{len(labels)} and {len(images)}"
        )
    if not images:
        raise InputError(f"expected images in {path}, got an empty list")
    for label in labels:
        check_label(label, len(names), path)
    for image in images:
        check_image(image, path)
    for name in names:
        check_class(name, path)
    return FileList(
        path,
        [path.parent / image for image in images],
        labels,
        [str(name) for name in names],
    )


class ImageFiles:
    """Images of a file list. They are opened when first read, and then cached.

    Two forms of an image are cached, each when it is first needed: the image cropped
    to size, and for augmentation the whole image, with a shorter side of at most twice
    the size. The published benchmark cuts its random parts from the pixels of the file.
    Here, the same is true for files within that limit. Parts of a larger file are
    resized twice: a part with fewer than image_size² cached pixels is enlarged and
    less sharp. For a square image that is about one part in five; for other images it
    is fewer.

    Args:
        listed: the file list.
        image_size: side of the returned images. Larger images are resized to 1.15
            times this size and cropped; smaller images are resized; images of this
            size are not changed.
        cache: cache for the images, which other objects may share; None: a new cache
            of 2 GiB.

    Cost: the cache takes 3 · image_size² bytes for an image cropped to size, and
    3 · height · width bytes for a whole image, at most 12 · image_size² if it is
    square.
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
            InputError: if the file is missing or cannot be opened; the message names
                it.
        """
        return self._kept(index, "cut", self._cut)

    def augmented(self, index: int) -> Tensor:
        """Return an image changed by :class:`Augmentation`, shape as in :meth:`image`.

        The changes are drawn from torch's global generator on the CPU.

        Raises:
            InputError: as in :meth:`image`.
        """
        return self._augment(self._kept(index, "whole", self._whole))

    def _kept(self, index: int, form: str, made: Callable[[Tensor], Tensor]) -> Tensor:
        path = self._listed.paths[index]

        def read() -> Tensor:
            # Without the copy, a view of a part would keep the whole image in memory.
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


def usual_side(listed: FileList) -> int:
    """Return the side of the first image, in pixels, at most 84.

    84 is the side of photographs for learn2learn's networks. Smaller ones are not
    enlarged.

    Raises:
        InputError: as in :meth:`ImageFiles.image`.
    """
    return min(_LARGEST, smallest_side(listed))


def smallest_side(listed: FileList) -> int:
    """Return the shorter side of the first image, in pixels.

    Raises:
        InputError: as in :meth:`ImageFiles.image`.
    """
    return min(_opened(listed.paths[0], listed.source).shape[1:])


def _opened(path: Path, source: Path) -> Tensor:
    """Return an image of any size, shape (3, H, W), dtype uint8.

    Args:
        path: path of the image.
        source: file list that contains the image, for messages.
    """
    try:
        picture = read_image(path)
    except InputError as error:
        raise InputError(f"{error}; it is listed in {source}") from error
    width, height = picture.size
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return flat.view(height, width, 3).permute(2, 0, 1).contiguous()
