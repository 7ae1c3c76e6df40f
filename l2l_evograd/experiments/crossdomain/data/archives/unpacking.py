"""Unpacks images and writes lists. Each file is written whole or not at all.

A run that is stopped leaves only complete files. The next run skips them.
"""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.progress import Progress

from l2l_evograd.checks import InputError
from l2l_evograd.data.folders import looking_at
from l2l_evograd.experiments.crossdomain.data.archives.sources import Member, Source
from l2l_evograd.experiments.files import (
    no_space,
    read_object,
    write_json,
    write_whole,
)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of writing ``path`` into InputError.

    Raises:
        InputError: if the disk is full.
        InputError: if the operating system refuses, for any reason.
    """
    try:
        yield
    except OSError as error:
        if no_space(error):
            raise InputError(
                f"the disk is full: no space for {path}; free space and run the same "
                f"command again; finished files are kept"
            ) from error
        raise InputError(
            f"cannot write {path} ({error.strerror}); choose another folder with --out"
        ) from error


def missing_images(targets: Mapping[Path, Member]) -> dict[Path, Member]:
    """Return the images whose files do not exist or have the wrong size.

    Args:
        targets: maps each path to the image that is unpacked to it.
    """
    missing = {}
    for path, image in targets.items():
        with looking_at(path):
            if not path.is_file() or path.stat().st_size != image.size:
                missing[path] = image
    return missing


def check_space(missing: Mapping[Path, Member], folder: Path) -> None:
    """Check that there is enough space for images, before anything is unpacked.

    Args:
        missing: images that will be unpacked.
        folder: the existing folder to which they will be unpacked.

    Raises:
        InputError: if there is not.
    """
    needed = sum(image.size or 0 for image in missing.values())
    with looking_at(folder):
        free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"not enough space in {folder}: the images take {needed / 1e9:,.2f} GB, "
            f"{free / 1e9:,.2f} GB are free; choose another folder with --out"
        )


def unpack(missing: Mapping[Path, Member], progress: Progress) -> None:
    """Unpack images.

    Args:
        missing: maps each path to the image that is unpacked to it.
        progress: progress bar.

    Cost: reads each archive with a missing image once; memory for one image.

    Raises:
        InputError: if an archive is damaged or the disk is full.
        InputError: if a file cannot be written.
    """
    by_source: dict[Source, dict[str, Path]] = {}
    for path, image in missing.items():
        by_source.setdefault(image.source, {})[image.name] = path
    for source, wanted in by_source.items():
        for name, content in source.contents(wanted, progress):
            _write_image(wanted[name], content)


def outdated_lists(folder: Path, lists: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the splits whose JSON files do not exist yet.

    Args:
        folder: folder of the data set.
        lists: maps each split to the content of its file.

    Raises:
        InputError: if a file exists with other content. It is not replaced, because
            the user may need it.
    """
    outdated = []
    for split, content in lists.items():
        path = folder / f"{split}.json"
        if not path.exists():
            outdated.append(split)
        elif read_object(path) != content:
            raise InputError(
                f"{path} already exists and lists other images; move it, or choose "
                f"another folder with --out"
            )
    return outdated


def write_list(path: Path, content: Mapping[str, Any]) -> None:
    """Write one JSON file, whole or not at all.

    Raises:
        InputError: as in :func:`writing`.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, content)


def _write_image(path: Path, content: bytes) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda place: place.write_bytes(content))
