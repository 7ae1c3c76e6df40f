"""Files that are written whole or not at all, and JSON files that may be damaged."""

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from l2l_evograd.checks import InputError
from l2l_evograd.data.regular_files import open_regular

# A JSON file of a run or a file list is far smaller. More would not fit in memory.
LARGEST_JSON = 2**28


def write_whole(
    path: Path, write: Callable[[Path], object], keep: Path | None = None
) -> None:
    """Let ``write`` make a file, and move it to ``path`` when it is on the disk.

    A process that is killed, or a machine that goes down, leaves either the old file or
    the new one.

    Args:
        path: path of the file.
        write: function that makes the file at the path that it is given.
        keep: path to which the old file is moved; None: it is replaced.

    Raises:
        OSError: if the file cannot be written, for example because the disk is full.
            The old file stays.
    """
    unfinished = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    try:
        write(unfinished)
        synchronise(unfinished)
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):  # the error that led here says more
            unfinished.unlink(missing_ok=True)
    synchronise(path.parent)


def synchronise(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some file systems cannot synchronise folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def write_text(path: Path, text: str, keep: Path | None = None) -> None:
    """Write a text file as :func:`write_whole` does."""
    write_whole(path, lambda place: place.write_text(text, encoding="utf-8"), keep)


def write_json(
    path: Path, content: Mapping[str, Any], keep: Path | None = None
) -> None:
    """Write a JSON file as :func:`write_whole` does."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n", keep)


def read_object(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file contains.

    Raises:
        InputError: if there is no such file, if it cannot be read or is too large, if
            it is not JSON, or does not contain an object.
    """
    text = read_text(path, "JSON")
    try:
        content = json.loads(
            text, parse_constant=_refuse_constant, object_pairs_hook=_each_once
        )
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} is not JSON: line {error.lineno}, {error.msg}"
        ) from error
    except RecursionError as error:
        raise InputError(f"{path} is not JSON that can be read: too nested") from error
    except ValueError as error:  # NaN, a number of thousands of digits, a repetition
        raise InputError(f"{path} is not JSON that can be read: {error}") from error
    return as_object(content, path)


def as_object(content: Any, path: Path) -> dict[str, Any]:
    """Return what a file contains if it is an object: names with values.

    Raises:
        InputError: if it is something else.
    """
    if not isinstance(content, dict):
        raise InputError(
            f"expected {path} to contain an object, got a {type(content).__name__}"
        )
    return content


def read_text(path: Path, language: str) -> str:
    """Return the text of a regular file.

    Args:
        path: path of the file.
        language: what it is written in, for messages, such as "JSON".

    Raises:
        InputError: if there is no such file, if it cannot be read or is too large, or
            if it is not UTF-8.
    """
    with open_regular(path) as file:
        try:
            content = file.read(LARGEST_JSON + 1)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > LARGEST_JSON:
        raise InputError(
            f"expected {path} to have at most {LARGEST_JSON // 2**20} MiB, got more"
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not {language}: it is not text in UTF-8"
        ) from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object. Of two values for one name, nobody knows which was meant."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:60]!r} is there several times")
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


@contextlib.contextmanager
def disk_errors(out: Path, advice: str) -> Iterator[None]:
    """Replace errors of the operating system in the body by one line.

    Args:
        out: the folder that the body writes to.
        advice: what the user may do once there is space again.

    Raises:
        InputError: where the disk is full or read-only, a file is in the way of
            another, or the system does not allow something else.
    """
    try:
        yield
    except ConnectionError:  # other processes, and readers of the output, are no files
        raise
    except OSError as error:
        raise InputError(_explained(error, out, advice)) from error


def _explained(error: OSError, out: Path, advice: str) -> str:
    place = out if error.filename is None else error.filename
    if no_space(error):
        return f"not enough space to write {place} ({error.strerror}); {advice}"
    return f"cannot use {place} ({error.strerror or error}); {advice}"


def no_space(error: BaseException) -> bool:
    """Return whether a full disk caused an error."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _NO_SPACE:
            return True
        # torch's writer raises this error when it cannot write the whole file.
        if "PytorchStreamWriter failed" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
