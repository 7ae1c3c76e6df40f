"""The standard output of a command, which may be closed, full, or read by nobody.

What a command computes is in its files. A reader that has gone, as after ``| head``,
does therefore not end it, and neither does a full disk under the standard output.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class Steady(io.TextIOBase):
    """A text stream that remembers the first error of writing and goes on.

    Characters that the stream cannot encode are written as backslash escapes.

    Args:
        stream: where to write to; None: the stream is closed, nothing is written.
        own: whether the stream is this process's, which nobody else writes to.

    Attributes:
        failure: the first error of writing; None: there was none.
    """

    def __init__(self, stream: TextIO | None, own: bool) -> None:
        self._stream = stream
        self._own = own
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text, if the stream still takes any; return its length."""
        if self._stream is not None and self.failure is None:
            with self._noting():
                self._stream.write(self._encodable(text))
        return len(text)

    def flush(self) -> None:
        """Write what is in the buffer."""
        if self._stream is not None and self.failure is None:
            with self._noting():
                self._stream.flush()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the stream; tables are drawn with what it contains."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Return the number of the stream's file."""
        if self._stream is None:
            raise io.UnsupportedOperation("the stream is closed")
        return self._stream.fileno()

    def writable(self) -> bool:
        """Return True."""
        return True

    def __getattr__(self, name: str) -> Any:
        """Return what only the stream itself has, such as ``buffer``."""
        return getattr(self._stream, name)

    def _encodable(self, text: str) -> str:
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            data = text.encode(self.encoding, "backslashreplace")
            return data.decode(self.encoding)
        return text

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = error
            self._leave()
        except ValueError as error:  # somebody has closed it
            self.failure = BrokenPipeError(str(error))

    def _leave(self) -> None:
        """Let what is left in the buffer go nowhere when the process ends."""
        if self._own and self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextlib.contextmanager
def steady_output(own: bool) -> Iterator[Steady]:
    """Let the body write to a :class:`Steady` standard output.

    Args:
        own: whether the process exists for the body alone.
    """
    steady = Steady(sys.stdout, own)
    with contextlib.redirect_stdout(steady):
        try:
            yield steady
        finally:
            steady.flush()
