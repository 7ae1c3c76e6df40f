"""Omniglot's two small background sets, read from their archives."""

import io
import re
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from l2l_evograd.checks import InputError
from l2l_evograd.data.decoding import decode
from l2l_evograd.data.folders import is_there
from l2l_evograd.data.regular_files import open_regular
from l2l_evograd.data.zipped import UNREADABLE, check_size, files_in
from l2l_evograd.experiments.fewshot.images import ClassImages, Problem

TRAIN, TEST = "images_background_small1.zip", "images_background_small2.zip"
SIDE = 28

# Of the characters for meta-training, every fifth is held out for validation.
HELD_OUT = 5
TURNS = 4

# The archives have 6 MB; a drawing has 105 x 105 pixels in black and white.
_LARGEST_ARCHIVE = 2**26
_LARGEST_DRAWING = 2**20
_LARGEST_IN_ALL = 2**28

_PATH = re.compile(
    r"(?:.*/)?(?P<alphabet>[^/]+)/(?P<character>character\d+)/[^/]+\.png"
)

# Images of each character, by the name ALPHABET/CHARACTER.
Characters = Mapping[str, list[Tensor]]


def read_omniglot(folder: Path, image_size: int = SIDE) -> Problem:
    """Return Omniglot's characters for meta-training, validation and test.

    Meta-training: the characters of the first archive without every fifth one; each of
    their turns by 0, 90, 180 and 270 degrees is a class. Validation: every fifth
    character of that archive, upright. Test: the characters of the second archive,
    upright, without alphabets that are in both archives. Ink is 1, paper is 0.

    Args:
        folder: the folder with the two archives.
        image_size: side of the returned images, in pixels.

    Raises:
        InputError: if an archive is missing, damaged, or contains something else.

    Cost: about two seconds. The images take 9 MB at 28 pixels.
    """
    archives = [folder / TRAIN, folder / TEST]
    missing = [path.name for path in archives if not is_there(path)]
    if missing:
        raise InputError(
            f"expected {TRAIN} and {TEST} in {folder}, but {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing; give the folder that "
            f"contains Omniglot's two small background sets with --omniglot"
        )
    first, second = (_read(path, image_size) for path in archives)
    held = sorted(first)[HELD_OUT - 1 :: HELD_OUT]
    both = {_alphabet(name) for name in first} & {_alphabet(name) for name in second}
    train = {name: images for name, images in first.items() if name not in held}
    test = {n: images for n, images in second.items() if _alphabet(n) not in both}
    if not held or not test:
        raise InputError(
            f"expected at least {HELD_OUT} characters in {archives[0]}, and in "
            f"{archives[1]} an alphabet that the other archive lacks; got "
            f"{len(first)} characters and alphabets {', '.join(sorted(both))} in both"
        )
    return Problem(
        f"Omniglot, {folder}",
        _split("Omniglot/train", _turned(train)),
        _split("Omniglot/validation", {name: first[name] for name in held}),
        _split("Omniglot/test", test),
    )


def _alphabet(name: str) -> str:
    return name.partition("/")[0]


def _turned(characters: Characters) -> Characters:
    return {
        f"{name}/{90 * turns}": [torch.rot90(i, turns, (1, 2)) for i in images]
        for name, images in characters.items()
        for turns in range(TURNS)
    }


def _split(name: str, characters: Characters) -> ClassImages:
    names = sorted(characters)
    labels = [label for label, n in enumerate(names) for _ in characters[n]]
    images = [image for n in names for image in characters[n]]
    return ClassImages(name, torch.stack(images), labels, names)


def _read(path: Path, image_size: int) -> Characters:
    found: dict[str, list[Tensor]] = defaultdict(list)
    with open_regular(path) as file:
        try:
            check_size(path.parent, path.name, file.seek(0, 2), _LARGEST_ARCHIVE)
            with zipfile.ZipFile(file) as archive:
                for member, character in _drawings(archive, path):
                    content = io.BytesIO(archive.read(member))
                    picture = decode(content, f"the image {member.filename}", "L")
                    found[character].append(_image(picture, image_size))
        except UNREADABLE as error:  # InputError is one of them
            raise InputError(
                f"cannot read {path} ({error}); the archive is damaged: fetch it again"
            ) from error
    if not found:
        raise InputError(
            f"expected images ALPHABET/characterNN/NAME.png in {path}, got none; fetch "
            f"the archive again"
        )
    return found


def _drawings(
    archive: zipfile.ZipFile, path: Path
) -> list[tuple[zipfile.ZipInfo, str]]:
    """Return the drawings in an archive, and the character of each.

    Raises:
        InputError: if one is too large, or all together; and as in :func:`files_in`.
    """
    drawings, total = [], 0
    for member in sorted(files_in(archive, path), key=lambda one: one.filename):
        place = _PATH.fullmatch(member.filename)
        if place is not None:
            check_size(path, member.filename, member.file_size, _LARGEST_DRAWING)
            total += member.file_size
            drawings.append((member, f"{place['alphabet']}/{place['character']}"))
    check_size(path, "all images", total, _LARGEST_IN_ALL)
    return drawings


def _image(picture: Image.Image, image_size: int) -> Tensor:
    """Return an image, shape (1, image_size, image_size), ink 255 and paper 0."""
    if picture.size != (image_size, image_size):
        picture = picture.resize((image_size, image_size), Image.Resampling.LANCZOS)
    return torch.from_numpy(255 - np.asarray(picture)).unsqueeze(0)
