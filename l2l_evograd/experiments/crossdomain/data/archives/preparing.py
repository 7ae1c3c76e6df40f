"""Prepare a data set: scan its archives, unpack images, and write the lists."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import TaskProgressColumn

from l2l_evograd.checks import InputError
from l2l_evograd.data.folders import given_path
from l2l_evograd.experiments.crossdomain.data.archives.holdings import Classes, Holdings
from l2l_evograd.experiments.crossdomain.data.archives.layout import Layout
from l2l_evograd.experiments.crossdomain.data.archives.names import folder_name
from l2l_evograd.experiments.crossdomain.data.archives.packed import open_source
from l2l_evograd.experiments.crossdomain.data.archives.sources import Member
from l2l_evograd.experiments.crossdomain.data.archives.splits import file_lists
from l2l_evograd.experiments.crossdomain.data.archives.unpacking import (
    check_space,
    missing_images,
    outdated_lists,
    unpack,
    write_list,
    writing,
)
from l2l_evograd.experiments.paths import folder_to_write
from l2l_evograd.experiments.progress import progress_bar
from l2l_evograd.lock import locked

_IMAGES = "images"


class MadeLists(NamedTuple):
    """The result of :func:`make_lists`.

    Attributes:
        folder: ``ROOT/NAME``.
        classes: maps each split to the number of its classes.
        images: maps each split to the number of its images.
        unpacked: number of images that were unpacked in this call.
        written: names of the lists that were written in this call.
    """

    folder: Path
    classes: dict[str, int]
    images: dict[str, int]
    unpacked: int
    written: list[str]


def make_lists(
    layout: Layout,
    archives: Sequence[str | Path],
    root: Path,
    console: Console | None = None,
) -> MadeLists:
    """Make ``ROOT/NAME/{base,val,novel}.json`` and the images that they list.

    Images of an archive are unpacked to ``ROOT/NAME/images/<class>/<file>`` and listed
    with paths relative to the JSON file. Images of a folder are not moved. They are
    listed with absolute paths, unless the folder is in ``ROOT/NAME``.

    Args:
        layout: one of :data:`~.archives.LAYOUTS`.
        archives: archives, or folders to which they were unpacked.
        root: the folder ``ROOT``.
        console: console for the progress bar; None: the standard output.

    Returns:
        The counts of the data set, and the files that this call has written.

    Cost: every archive is read once, and once more if some of its images are missing.
        For the largest archive, 120 GB, this takes twice as long as unpacking it with
        tar.

    Raises:
        InputError: if the archives are not those of the data set, are cut short or are
            unsafe, or if a folder cannot be written to. Lists are written last, so
            none of them is written in this case.
    """
    root = given_path(root)
    folder = root / layout.name
    for place in (root, folder):
        folder_to_write(place)
    sources = [open_source(path) for path in archives]
    with progress_bar(console or Console(), TaskProgressColumn()) as progress:
        for source in sources:
            source.scan(layout.annotations, progress)
        classes = layout.classes(Holdings(sources))
        targets = _targets(classes, folder)
        lists = file_lists(classes, lambda i, image: _listed(targets[image], folder))
        outdated = outdated_lists(folder, lists)
        missing = missing_images(
            {path: image for image, path in targets.items() if image.size is not None}
        )
        with contextlib.ExitStack() as stack:
            if missing or outdated:
                with writing(folder):
                    stack.enter_context(locked(folder))
            check_space(missing, folder)
            unpack(missing, progress)
            for split in outdated:
                write_list(folder / f"{split}.json", lists[split])
    labels = {split: content["image_labels"] for split, content in lists.items()}
    return MadeLists(
        folder,
        {split: len(set(of_split)) for split, of_split in labels.items()},
        {split: len(of_split) for split, of_split in labels.items()},
        len(missing),
        outdated,
    )


def _targets(classes: Classes, folder: Path) -> dict[Member, Path]:
    """Return the path of each image, before or after it is unpacked.

    Raises:
        InputError: if two classes would share a folder.
    """
    targets: dict[Member, Path] = {}
    owners: dict[str, str] = {}
    for label, images in zip(classes.label_names, classes.images, strict=True):
        own = folder_name(label)
        if owners.setdefault(own, label) != label:
            raise InputError(
                f"expected a separate folder for each class, but {owners[own]!r} and "
                f"{label!r} would both be unpacked to {folder / _IMAGES / own}"
            )
        for image in images:
            stays = image.size is None
            targets[image] = (
                image.source.path.parent / image.name
                if stays
                else folder / _IMAGES / own / image.file
            )
    return targets


def _listed(path: Path, folder: Path) -> str:
    """Return a path relative to the lists, or the absolute path if it is elsewhere."""
    inside = folder.resolve()
    if path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    if path.is_relative_to(inside):
        return path.relative_to(inside).as_posix()
    return str(path)
