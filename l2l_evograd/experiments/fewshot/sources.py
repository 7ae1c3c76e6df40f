"""The source of the images: built-in glyphs, Omniglot, or file lists."""

from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from l2l_evograd.data.decoding import images_of
from l2l_evograd.data.folders import given_path
from l2l_evograd.data.glyphs import CLASSES, GlyphSplit
from l2l_evograd.experiments.crossdomain.data.domains import PHOTOGRAPHS
from l2l_evograd.experiments.crossdomain.data.filelists import (
    SPLITS,
    FileList,
    ImageFiles,
    read_lists,
    usual_side,
)
from l2l_evograd.experiments.crossdomain.data.image_cache import ImageCache
from l2l_evograd.experiments.fewshot.images import ClassImages, Problem
from l2l_evograd.experiments.fewshot.omniglot import SIDE, read_omniglot
from l2l_evograd.experiments.fewshot.settings import FewShotSettings

# For the built-in glyphs: side in pixels, and number of images of each class.
_GLYPH_SIDE = 20
_EACH = 20


def read_problem(settings: FewShotSettings, console: Console) -> Problem:
    """Return the images that the settings name.

    Args:
        settings: settings of the run.
        console: console for the progress bar.

    Raises:
        InputError: for files that are missing or damaged; the message names them.

    Cost: two seconds for the glyphs and for Omniglot. All images stay in memory.
    """
    size = settings.image_size
    if settings.omniglot is not None:
        return read_omniglot(given_path(settings.omniglot), size or SIDE)
    if settings.data is not None:
        return _listed(given_path(settings.data), size, console)
    return built_in_glyphs(size or _GLYPH_SIDE)


def built_in_glyphs(image_size: int = _GLYPH_SIDE) -> Problem:
    """Return grey printed glyphs in several fonts, with ink near 1 and paper near 0.

    Every image has its own font face, size, position and angle, and there are few
    classes for meta-training. One support image of each class is therefore far from
    enough for a high accuracy.

    Args:
        image_size: side in pixels, at least 16.

    Raises:
        InputError: for a smaller side.
    """
    splits = []
    for split in SPLITS:
        names = CLASSES[split]
        drawn = GlyphSplit("print", split, image_size, 0, _EACH)
        labels = [label for label in range(len(names)) for _ in drawn.copies]
        images = [drawn.image(i).float().mean(0).byte() for i in range(len(labels))]
        ink = 255 - torch.stack(images).unsqueeze(1)
        splits.append(ClassImages(f"built-in glyphs/{split}", ink, labels, names))
    return Problem("built-in glyphs", *splits)


def _listed(folder: Path, image_size: int | None, console: Console) -> Problem:
    lists = read_lists(folder)
    size = image_size or usual_side(lists["base"])
    splits = [_in_memory(folder.name, s, lists[s], size, console) for s in SPLITS]
    return Problem(str(folder), *splits)


def _in_memory(
    name: str, split: str, listed: FileList, size: int, console: Console
) -> ClassImages:
    files = ImageFiles(listed, size, ImageCache(0))  # each image is read once
    steps = track(
        range(len(listed.labels)),
        description=f"  reading {name}/{split}",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    images = images_of(len(listed.labels), 3, size)
    for index in steps:
        images[index] = files.image(index)
    mean, deviation = PHOTOGRAPHS
    return ClassImages(
        f"{name}/{split}",
        images,
        listed.labels,
        listed.label_names,
        tuple(mean),
        tuple(deviation),
    )
