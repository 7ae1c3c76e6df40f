"""Unpacking images and writing lists, each file in one stroke.

A run that is stopped leaves whole files alone; the next one passes over them.
"""

import contextlib
import errno
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.progress import Progress

from l2l_evograd.fewshot.archives.sources import Member, Source
from l2l_evograd.runs.folder import read_object, write_json, write_whole

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while writing ``path`` into a sentence.

    Raises:
        ValueError: if the disk is full.
        PermissionError: if the system does not let us, for whatever reason.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ValueError(
                f"the disk is full: no room for {path}; free some and give the same "
                f"command again, what is there already stays"
            ) from error
        raise PermissionError(
            f"cannot write {path} ({error.strerror}); choose another folder with --out"
        ) from error


def missing_images(targets: Mapping[Path, Member]) -> dict[Path, Member]:
    """Return those of the images that are not there with the size they should have.

    Args:
        targets: path -> image to be unpacked to it.
    """
    return {
        path: image
        for path, image in targets.items()
        if not path.is_file() or path.stat().st_size != image.size
    }


def unpack(missing: Mapping[Path, Member], progress: Progress) -> None:
    """Unpack images.

    Args:
        missing: path -> image to be unpacked to it.
        progress: to show how far it is.

    Cost: reads every archive that holds one of them once; memory of one image.

    Raises:
        ValueError: if an archive is damaged or the disk full.
        PermissionError: if a file cannot be written.
    """
    by_source: dict[Source, dict[str, Path]] = {}
    for path, image in missing.items():
        by_source.setdefault(image.source, {})[image.name] = path
    for source, wanted in by_source.items():
        for name, content in source.contents(wanted, progress):
            _write_image(wanted[name], content)


def outdated_lists(folder: Path, lists: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return those of the splits whose JSON file is not there yet.

    Args:
        folder: of the data set.
        lists: split -> what its file shall hold.

    Raises:
        ValueError: if a file holds something else, which is not ours to replace.
    """
    outdated = []
    for split, content in lists.items():
        path = folder / f"{split}.json"
        if not path.exists():
            outdated.append(split)
        elif read_object(path) != content:
            raise ValueError(
                f"{path} is there already and lists other images; move it away or "
                f"choose another folder with --out"
            )
    return outdated


def write_list(path: Path, content: Mapping[str, Any]) -> None:
    """Write one JSON file in one stroke.

    Raises:
        ValueError, PermissionError: as :func:`writing`.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, content)


def _write_image(path: Path, content: bytes) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda place: _write_bytes(place, content))


def _write_bytes(place: Path, content: bytes) -> None:
    place.write_bytes(content)
