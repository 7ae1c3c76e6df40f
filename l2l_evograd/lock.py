"""A lock on a folder, so that two runs do not write to it at once."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from l2l_evograd.checks import InputError

LOCK = ".lock"

# The folders that this process has locked. The system's locks do not keep a process
# from locking its own file again.
_HELD: set[Path] = set()


@contextlib.contextmanager
def locked(out: Path, option: str = "--out") -> Iterator[None]:
    """Lock a folder during the body, and make it if there is none.

    The system releases the lock when the process ends, whatever ends it. Processes that
    this one starts do not hold it. A folder that the body leaves empty is removed if it
    was made here.

    Args:
        out: the folder.
        option: command-line option that names the folder.

    Raises:
        InputError: if another run has locked the folder, or if it cannot be made or
            written to.
    """
    try:
        made = _missing(out)
        out.mkdir(parents=True, exist_ok=True)
        place = out.resolve()
        handle = None if place in _HELD else _lock(out)
    except OSError as error:
        raise InputError(
            f"cannot write to {out} ({error.strerror}); choose another folder "
            f"({option})"
        ) from error
    if handle is None:
        raise InputError(
            f"another run is writing to {out}: wait until it ends, or choose another "
            f"folder ({option})"
        )
    _HELD.add(place)
    try:
        yield
    finally:
        _HELD.discard(place)
        _tidy(out, made)
        os.close(handle)


def _lock(out: Path) -> int | None:
    """Return the handle of the locked file; None if another process has locked it."""
    path = out / LOCK
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _take(handle)
            # Another run may have removed the file between the two calls.
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except OSError as error:
            os.close(handle)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return None
            raise
        os.close(handle)


def _take(handle: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has another kind of locks, which was never tried
        return
    # Not flock: worker processes, which are forked, would inherit it and could hold it
    # longer than this process lives.
    fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _missing(out: Path) -> list[Path]:
    """Return the folders that have to be made, the innermost first."""
    return [folder for folder in (out, *out.parents) if not folder.exists()]


def _tidy(out: Path, made: list[Path]) -> None:
    """Remove the file of the lock, and folders that were made and are empty."""
    with contextlib.suppress(OSError):  # a folder that is not empty stays
        (out / LOCK).unlink(missing_ok=True)
        for folder in made:
            folder.rmdir()
