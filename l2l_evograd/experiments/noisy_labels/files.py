"""Readers of images on disk: torchvision's CIFAR files, or a folder for each class."""

from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.functional import pil_to_tensor

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.noisy_labels.images import ImageSource, LabelledImages

_CIFAR = {
    "cifar-10-batches-py": ("CIFAR-10", datasets.CIFAR10),
    "cifar-100-python": ("CIFAR-100", datasets.CIFAR100),
}
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
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; {_LAYOUT}")
    if root.name in _CIFAR:
        return _cifar(root.parent, root.name, image_size)
    found = [name for name in _CIFAR if (root / name).is_dir()]
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
    sets = []
    for train in (True, False):
        try:
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
    missing = [part for part in ("train", "test") if not (root / part).is_dir()]
    if missing:
        raise InputError(f"{root} has no folder {' or '.join(missing)}; {_LAYOUT}")
    classes = {part: _classes(root / part) for part in ("train", "test")}
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
    sets = [_read(root / part, image_size, console) for part in ("train", "test")]
    return ImageSource(str(root), sets[0], sets[1], classes["train"])


def _classes(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _read(folder: Path, image_size: int, console: Console) -> LabelledImages:
    try:
        files = datasets.ImageFolder(str(folder))
    except FileNotFoundError as error:
        raise InputError(
            f"a class in {folder} has no images: {error}; {_LAYOUT}"
        ) from error
    images = torch.empty((len(files), 3, image_size, image_size), dtype=torch.uint8)
    steps = track(
        files.samples,
        description=f"  reading {folder.name}",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    for position, (path, _) in enumerate(steps):
        images[position] = _image(path, image_size)
    return LabelledImages(images, torch.tensor(files.targets))


def _image(path: str, image_size: int) -> Tensor:
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
    except OSError as error:
        raise InputError(f"cannot read the image {path}: {error}") from error
    if picture.size != (image_size, image_size):
        picture = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return pil_to_tensor(picture)
