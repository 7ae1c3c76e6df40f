"""Readers of images on disk: torchvision's CIFAR files, or a folder for each class."""

from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.functional import pil_to_tensor

from l2l_evograd.checks import InputError
from l2l_evograd.data.decoding import images_of, read_image
from l2l_evograd.data.folders import (
    folders_in,
    is_folder,
    is_there,
    looking_at,
    walked,
)
from l2l_evograd.data.regular_files import open_regular
from l2l_evograd.experiments.noisy_labels.images import ImageSource, LabelledImages

_CIFAR = {
    "cifar-10-batches-py": ("CIFAR-10", datasets.CIFAR10),
    "cifar-100-python": ("CIFAR-100", datasets.CIFAR100),
}
# The largest file of the two, CIFAR-100's, has 155 MB.
_LARGEST = 2**28
_LAYOUT = (
    "expected cifar-10-batches-py or cifar-100-python as torchvision writes them, or "
    "train/<class>/*.png and test/<class>/*.png"
)


def read_files(root: Path, image_size: int, console: Console) -> ImageSource:
    """Return the images in a folder; see :func:`~.sources.read_source`.

    Cost: reading CIFAR as 60,000 JPEG files takes 20 s.

    Raises:
        InputError: for a folder with another layout.
    """
    if not is_folder(root):
        raise InputError(f"{root} is not a folder; {_LAYOUT}")
    if root.name in _CIFAR:
        return _cifar(root.parent, root.name, image_size)
    found = [name for name in _CIFAR if is_folder(root / name)]
    if len(found) > 1:
        raise InputError(
            f"{root} contains both {' and '.join(found)}; name one of them, as in "
            f"--data {root / found[0]}"
        )
    if found:
        return _cifar(root, found[0], image_size)
    return _folders(root, image_size, console)


def _cifar(root: Path, folder: str, image_size: int) -> ImageSource:
    name, kind = _CIFAR[folder]
    if image_size != 32:
        raise InputError(
            f"images of {name} are 32 pixels wide: expected an image size of 32, got "
            f"{image_size}"
        )
    _check_files(root / folder)
    sets = []
    for train in (True, False):
        try:
            with looking_at(root / folder):
                files = kind(str(root), train=train)
        except RuntimeError as error:
            raise InputError(
                f"torchvision finds the files in {root / folder} incomplete or "
                f"corrupted; download them again"
            ) from error
        images = torch.from_numpy(files.data).permute(0, 3, 1, 2).contiguous()
        sets.append(LabelledImages(images, torch.tensor(files.targets)))
    return ImageSource(name, sets[0], sets[1], files.classes)


def _folders(root: Path, image_size: int, console: Console) -> ImageSource:
    missing = [part for part in ("train", "test") if not is_folder(root / part)]
    if missing:
        raise InputError(f"{root} has no folder {' or '.join(missing)}; {_LAYOUT}")
    classes = {part: folders_in(root / part) for part in ("train", "test")}
    if classes["train"] != classes["test"]:
        odd = sorted(set(classes["train"]).symmetric_difference(classes["test"]))
        raise InputError(
            f"expected the same classes in {root / 'train'} and {root / 'test'}, but "
            f"{', '.join(odd[:5])} {'is' if len(odd) == 1 else 'are'} only in one of "
            f"them"
        )
    if len(classes["train"]) < 2:
        raise InputError(
            f"expected at least two classes, got {len(classes['train'])} in "
            f"{root / 'train'}; {_LAYOUT}"
        )
    names = classes["train"]
    sets = [_read(root / p, names, image_size, console) for p in ("train", "test")]
    return ImageSource(str(root), sets[0], sets[1], names)


def _check_files(folder: Path) -> None:
    """Check that CIFAR's files can be opened, before torchvision reads them whole.

    torchvision unpickles them only if their checksums are those of the published files.

    Raises:
        InputError: if one is not a regular file, or is larger than the published ones.
    """
    for path in (folder / name for name in _names(folder)):
        if is_there(path):
            with looking_at(path), open_regular(path) as file:
                size = file.seek(0, 2)
            if size > _LARGEST:
                raise InputError(
                    f"expected {path} to have at most {_LARGEST // 2**20} MiB, got "
                    f"{size // 2**20} MiB; download it again"
                )


def _names(folder: Path) -> list[str]:
    """Return the names of the files in a folder of CIFAR."""
    kind = _CIFAR[folder.name][1]
    listed = [name for name, _ in (*kind.train_list, *kind.test_list)]
    return [*listed, kind.meta["filename"]]


def _read(
    folder: Path, classes: list[str], image_size: int, console: Console
) -> LabelledImages:
    files = [_images(folder / name) for name in classes]
    paths = [path for of_class in files for path in of_class]
    images = images_of(len(paths), 3, image_size)
    steps = track(
        paths,
        description=f"  reading {folder.name}",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    for position, path in enumerate(steps):
        images[position] = _image(path, image_size)
    labels = [label for label, of_class in enumerate(files) for _ in of_class]
    return LabelledImages(images, torch.tensor(labels))


def _images(folder: Path) -> list[Path]:
    """Return the images of a class, in the order of torchvision's ImageFolder.

    Raises:
        InputError: if there is none.
    """
    places = sorted(
        (str(place), files)
        for place, files in walked(folder, lambda n: n.lower().endswith(IMG_EXTENSIONS))
    )
    images = [Path(place, file) for place, files in places for file in files]
    if not images:
        raise InputError(
            f"the class {folder} has no images ({', '.join(IMG_EXTENSIONS)}); {_LAYOUT}"
        )
    return images


def _image(path: Path, image_size: int) -> Tensor:
    picture = read_image(path)
    if picture.size != (image_size, image_size):
        picture = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return pil_to_tensor(picture)
