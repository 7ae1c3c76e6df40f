"""Checks of the paths that a user gives, before anything is written."""

import errno
import os
import stat
from pathlib import Path

from l2l_evograd.checks import InputError
from l2l_evograd.data.folders import given_path

# Bytes of the longest name of a file and of the longest path, as on Linux. The files
# below a folder have at most _BELOW bytes more.
_NAME, _PATH, _BELOW = 255, 4095, 300

# More folders in each other cannot be made: Python makes them by recursion.
_DEEPEST = 200


def expanded(path: str | Path, option: str) -> Path:
    """Return a path with the home folder in place of ``~``, if the system can use it.

    There need not be anything at the path.

    Args:
        path: the path, as the user gave it.
        option: option of the command line that names it.

    Raises:
        InputError: if it is empty, names a user who does not exist, is no text that
            files can have as a name, or is too long; if links go round, a folder on the
            way is a file, or the system does not let the user look there.
    """
    found = _expanded(path, option)
    try:
        os.stat(found)
    except FileNotFoundError:
        _check_way(found, option)
    except NotADirectoryError as error:
        files = [p for p in found.parents if os.path.lexists(p) and not p.is_dir()]
        raise InputError(
            f"{option}: cannot use {found}: {files[0] if files else found.parent} is a "
            f"file, not a folder"
        ) from error
    return found


def _expanded(path: str | Path, option: str) -> Path:
    """Do as :func:`expanded`, but let a file be on the way, and links to nowhere."""
    try:
        found = given_path(path)
    except InputError as error:
        raise InputError(f"{option}: {error}") from error
    whole = _absolute(found, option)
    if len(whole) > _PATH or any(len(name) > _NAME for name in whole.split(b"/")):
        raise InputError(
            f"{option}: the path is too long: expected at most {_NAME} bytes in each "
            f"name and {_PATH} in all, got {str(found)[:60]!r}..."
        )
    try:
        os.stat(found)
    except (FileNotFoundError, NotADirectoryError):
        return found
    except OSError as error:
        reason = "links go round" if error.errno == errno.ELOOP else error.strerror
        raise InputError(
            f"{option}: cannot use {found}: {reason}; choose another path"
        ) from error
    return found


def folder_to_write(path: str | Path, option: str = "--out") -> Path:
    """Return the path of a folder that exists, or that can be made.

    Args:
        path: the path, as the user gave it.
        option: option of the command line that names it.

    Raises:
        InputError: as :func:`expanded`, if it is something else than a folder, if it
            cannot be written to, or if its path leaves no room for files below it.
    """
    out = _expanded(path, option)
    if len(_absolute(out, option)) > _PATH - _BELOW:
        raise InputError(
            f"{option}: the path is too long: expected at most {_PATH - _BELOW} bytes, "
            f"so that there is room for the files in it, got {str(out)[:60]!r}..."
        )
    if len(out.parts) > _DEEPEST:
        raise InputError(
            f"{option}: the path is too deep: expected at most {_DEEPEST} folders in "
            f"each other, got {len(out.parts)}"
        )
    existing = out
    while not os.path.lexists(existing):
        existing = existing.parent
    what = _something_else(existing)
    if what and existing == out:
        raise InputError(f"expected {option} to be a folder, but {out} is {what}")
    if what:
        raise InputError(
            f"cannot make the folder {out}: {existing} is {what}, not a folder; choose "
            f"another folder with {option}"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(
            f"cannot write to {existing}; choose another folder with {option}"
        )
    return out


def _absolute(path: Path, option: str) -> bytes:
    try:
        return os.fsencode(os.path.abspath(path))
    except FileNotFoundError as error:
        raise InputError(
            f"{option}: the folder in which the command was started is gone; give the "
            f"whole path"
        ) from error


def _something_else(path: Path) -> str:
    """Return what is at a path, or "" for a folder."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "a link that leads nowhere"
    if stat.S_ISDIR(mode):
        return ""
    return "a file" if stat.S_ISREG(mode) else "a pipe or a device"


def _check_way(path: Path, option: str) -> None:
    """Refuse a path that leads through a link to nowhere."""
    for folder in path.parents:
        if os.path.islink(folder) and not folder.exists():
            raise InputError(
                f"{option}: cannot use {path}: {folder} is a link that leads nowhere"
            )
