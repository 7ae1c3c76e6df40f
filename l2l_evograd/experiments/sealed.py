"""Files of a run that prove themselves, of which two generations are kept.

Each contains a digest of its content. A file that was damaged, or edited by hand, no
longer agrees with it. When a file is replaced, its last state stays beside it under the
name of :func:`previous`.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.digests import digest_of
from l2l_evograd.experiments.files import read_object, write_json

DIGEST = "digest"

_Content = TypeVar("_Content")


def previous(path: Path) -> Path:
    """Return the path of the generation before the one at ``path``."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def damaged(path: Path) -> Path:
    """Return the path to which a damaged file is moved."""
    return path.with_name(f"{path.stem}.damaged{path.suffix}")


def exists(path: Path) -> bool:
    """Return whether there is a file, of one generation or the other."""
    return path.exists() or previous(path).exists()


def remove(path: Path) -> None:
    """Remove a file with its other generation, and a damaged one."""
    for each in (damaged(path), previous(path), path):
        each.unlink(missing_ok=True)


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file with its digest in one step, and keep the one before.

    Raises:
        OSError: if it cannot be written; the file before stays.
        ValueError: for NaN and infinite numbers.
    """
    write_json(path, {**content, DIGEST: digest_of(content)}, previous(path))


def read_sealed(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file, without its digest.

    Raises:
        InputError: if it cannot be read, or if it does not agree with its digest.
    """
    content = read_object(path)
    found = content.pop(DIGEST, None)
    if found is None:
        raise InputError(
            f"{path} has no digest: another program or version wrote it, or it was "
            f"edited"
        )
    if found != digest_of(content):
        raise InputError(
            f"{path} is damaged or was edited: it does not agree with its digest"
        )
    return content


def last_good(
    path: Path, read: Callable[[Path], _Content]
) -> tuple[_Content, Path, str]:
    """Read the newest generation of a file that is good.

    Args:
        path: path of the file. It may be missing if the generation before is there, as
            after a process was killed between two names.
        read: function that reads it, and raises an InputError if it is damaged.

    Returns:
        What ``read`` returned, the path that it read, and what is wrong with the newest
        file; "" if nothing is.

    Raises:
        InputError: of the newest file, if no generation is good.
    """
    older = previous(path)
    if not path.exists() and older.exists():
        return read(older), older, ""
    try:
        return read(path), path, ""
    except InputError as error:
        if not older.exists():
            raise
        try:
            return read(older), older, str(error)
        except InputError:
            raise error from None


def mend(path: Path, read: Callable[[Path], object] = read_sealed) -> str:
    """Move a damaged file out of the way if the generation before is good.

    Returns:
        What happened, for the user; "" if nothing did.

    Raises:
        InputError: if no generation is good.
    """
    if not exists(path):
        return ""
    _, used, wrong = last_good(path, read)
    if not wrong:
        return ""
    os.replace(path, damaged(path))
    return f"{wrong}; going on from {used.name}, and keeping it as {damaged(path).name}"
