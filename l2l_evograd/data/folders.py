"""Paths and folders that the user names: looked at without surprises."""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from l2l_evograd.checks import InputError

# Paths have at most 4096 bytes on Linux, and fewer elsewhere.
_LONGEST = 4096


def given_path(text: str | Path) -> Path:
    """Return a path that the user gave, with the home folder in place of ``~``.

    Raises:
        InputError: if it is empty, names a user who does not exist, or contains what
            no name of a file can contain.
    """
    if str(text) == "":
        raise InputError("expected a path, got an empty one")
    check_name(str(text), "the path")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"cannot find the home folder in {str(text)!r}; give the whole path"
        ) from error


def check_name(name: str, what: str) -> None:
    """Check that a name can be the path of a file.

    Args:
        name: the name.
        what: what it is, for messages.

    Raises:
        InputError: if it contains a NUL, is not text in UTF-8, or is too long.
    """
    if len(name) > _LONGEST:
        raise InputError(
            f"expected {what} to have at most {_LONGEST} letters, got {len(name):,} in "
            f"{name[:40]!r}..."
        )
    try:
        valid = b"\0" not in name.encode("utf-8")
    except UnicodeEncodeError:
        valid = False
    if not valid:
        raise InputError(
            f"expected {what} to be text in UTF-8 without NUL, got {name[:80]!r}"
        )


@contextlib.contextmanager
def looking_at(path: Path) -> Iterator[None]:
    """Turn errors of looking at files and folders in the body into InputError.

    Raises:
        InputError: if the operating system refuses. The message names the file.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        place = getattr(error, "filename", None) or path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {str(place)!r}: {reason}") from error


def is_folder(path: Path) -> bool:
    """Return whether there is a folder at ``path``.

    Raises:
        InputError: if this cannot be found out.
    """
    with looking_at(path):
        try:
            return stat.S_ISDIR(os.stat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False


def is_there(path: Path) -> bool:
    """Return whether there is something at ``path``, even a link that leads nowhere."""
    return os.path.lexists(path)


def folders_in(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder.

    Raises:
        InputError: if the folder cannot be read.
    """
    with looking_at(folder), os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def walked(
    top: Path, wanted: Callable[[str], bool]
) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder from ``top`` down, with the sorted names of its wanted files.

    Links to folders are followed, because large data sets are often stored elsewhere.
    The folders in a folder follow it, in the order of their names.

    Args:
        top: the folder.
        wanted: whether a file is wanted, by its name.

    Raises:
        InputError: if a folder cannot be read, if a link leads to a folder above it,
            or if something that is wanted is not a file.
    """
    pending: list[tuple[Path, tuple[tuple[int, int], ...]]] = [(top, ())]
    while pending:
        folder, above = pending.pop()
        with looking_at(folder):
            seen = os.stat(folder)
            own = (seen.st_dev, seen.st_ino)
            if own in above:
                raise InputError(
                    f"{folder} is a link to a folder above it, so that the folders "
                    f"have no end; remove the link"
                )
            files, folders = _content(folder, wanted)
        yield folder, files
        pending += [(folder / name, (*above, own)) for name in reversed(folders)]


def _content(
    folder: Path, wanted: Callable[[str], bool]
) -> tuple[list[str], list[str]]:
    """Return the sorted names of the wanted files and of the folders in a folder."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                folders.append(entry.name)
            elif wanted(entry.name):
                if not entry.is_file():
                    raise InputError(
                        f"expected a file at {entry.path}, got a pipe, a device, or a "
                        f"link that leads nowhere; remove it"
                    )
                files.append(entry.name)
    return sorted(files), sorted(folders)
