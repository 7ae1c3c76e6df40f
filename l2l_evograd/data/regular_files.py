"""Open files of which others chose the path."""

import os
import stat
from pathlib import Path
from typing import IO

from l2l_evograd.checks import InputError


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file for reading.

    Raises:
        InputError: if there is no such file, if it cannot be read, or if it is a
            folder, a pipe, a device or a socket.
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {str(path)!r}: {reason}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InputError(f"expected {str(path)!r} to be a file, got something else")
    return os.fdopen(handle, "rb")
