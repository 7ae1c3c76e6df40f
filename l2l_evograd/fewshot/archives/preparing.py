"""Prepare a data set: see what its archives hold, unpack images, write the lists."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from l2l_evograd.fewshot.archives.holdings import Classes, Holdings
from l2l_evograd.fewshot.archives.layout import Layout
from l2l_evograd.fewshot.archives.names import folder_name
from l2l_evograd.fewshot.archives.packed import open_source
from l2l_evograd.fewshot.archives.sources import Member
from l2l_evograd.fewshot.archives.splits import file_lists
from l2l_evograd.fewshot.archives.unpacking import (
    missing_images,
    outdated_lists,
    unpack,
    write_list,
)
from l2l_evograd.runs.folder import check_writable

_IMAGES = "images"


class Prepared(NamedTuple):
    """What :func:`prepare` has made.

    Attributes:
        folder: ``ROOT/NAME``.
        classes: split -> number of its classes.
        images: split -> number of its images.
        unpacked: number of images that were not there before.
        written: the lists that were not there before.
    """

    folder: Path
    classes: dict[str, int]
    images: dict[str, int]
    unpacked: int
    written: list[str]


def prepare(
    layout: Layout,
    archives: Sequence[Path],
    root: Path,
    console: Console | None = None,
) -> Prepared:
    """Make ``ROOT/NAME/{base,val,novel}.json`` and the images that they list.

    Images of an archive go to ``ROOT/NAME/images/<class>/<file>`` and are listed
    relative to the JSON file. Images of a folder stay where they are and are listed by
    their whole path, unless the folder is in ``ROOT/NAME``.

    Args:
        layout: one of :data:`~l2l_evograd.fewshot.archives.LAYOUTS`.
        archives: archives, or folders that they were unpacked to.
        root: the folder ``ROOT``.
        console: where to show how far it is; None: the standard output.

    Returns:
        What is there now, and what was not there before.

    Cost: every archive is read once, and once more if images of it are missing. For
        the largest, 120 GB, that takes as long as unpacking it with tar, twice.

    Raises:
        ValueError, FileNotFoundError, PermissionError: for archives that are not those
            of the data set, cut short or unsafe, and for a folder that cannot be
            written to; lists are written last, so none is left then.
    """
    root = root.expanduser()
    folder = root / layout.name
    for place in (root, folder):
        check_writable(place)
    sources = [open_source(path) for path in archives]
    with _progress(console or Console()) as progress:
        for source in sources:
            source.scan(layout.annotations, progress)
        classes = layout.classes(Holdings(sources))
        targets = _targets(classes, folder)
        lists = file_lists(classes, lambda i, image: _listed(targets[image], folder))
        outdated = outdated_lists(folder, lists)
        missing = missing_images(
            {path: image for image, path in targets.items() if image.size is not None}
        )
        unpack(missing, progress)
    for split in outdated:
        write_list(folder / f"{split}.json", lists[split])
    labels = {split: content["image_labels"] for split, content in lists.items()}
    return Prepared(
        folder,
        {split: len(set(of_split)) for split, of_split in labels.items()},
        {split: len(of_split) for split, of_split in labels.items()},
        len(missing),
        outdated,
    )


def _targets(classes: Classes, folder: Path) -> dict[Member, Path]:
    """Return where each image lies, or will.

    Raises:
        ValueError: if two classes would share a folder.
    """
    targets: dict[Member, Path] = {}
    owners: dict[str, str] = {}
    for label, images in zip(classes.label_names, classes.images, strict=True):
        own = folder_name(label)
        if owners.setdefault(own, label) != label:
            raise ValueError(
                f"expected classes with folders of their own, but {owners[own]!r} and "
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
    """Return a path relative to the lists, or whole if it lies elsewhere."""
    inside = folder.resolve()
    if path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    if path.is_relative_to(inside):
        return path.relative_to(inside).as_posix()
    return str(path)


def _progress(console: Console) -> Progress:
    """Return bars that go away at the end and show on terminals alone."""
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
