"""Commands in sessions of their own, whose processes can be counted."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from faulty import Ended, Fault

# Seconds in which everything has to end after a signal.
LIMIT = 10.0

COMMAND = (sys.executable, "-m", "l2l_evograd.cli")


class Process(NamedTuple):
    """A process of a session.

    Attributes:
        number: its number.
        parent: the number of its parent.
        line: its command line.
    """

    number: int
    parent: int
    line: str


class Session:
    """A command line in a session of its own.

    Args:
        line: the command line after ``l2l-evograd``.
        started: what it is started with.
    """

    def __init__(self, line: Sequence[str], started: Sequence[str] = COMMAND) -> None:
        self._out = tempfile.TemporaryFile("w+")
        self._err = tempfile.TemporaryFile("w+")
        with _interrupts_taken():
            self._process = subprocess.Popen(
                [*started, *map(str, line)],
                stdin=subprocess.DEVNULL,
                stdout=self._out,
                stderr=self._err,
                start_new_session=True,
                env=environment(),
            )
        self.number = self._process.pid

    def running(self) -> bool:
        """Return whether the first process runs."""
        return self._process.poll() is None

    def end(self, seconds: float) -> Ended:
        """Wait for the first process, then until no process is left.

        Raises:
            Fault: if that takes too long. All processes are killed then.
        """
        deadline = time.monotonic() + seconds
        while self.running() or self.processes():
            if time.monotonic() > deadline:
                left = self.processes()
                for process in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.number, signal.SIGKILL)
                self._process.wait()
                raise Fault(f"left after {seconds:.0f} s: {left}; {self._said()}")
            time.sleep(0.02)
        return Ended(self._process.returncode, *self._said())

    def processes(self) -> list[Process]:
        """Return the processes of the session that have not ended, oldest first."""
        found = []
        for place in sorted(Path("/proc").glob("[0-9]*"), key=lambda p: int(p.name)):
            with contextlib.suppress(OSError):
                words = (place / "stat").read_text().rpartition(")")[2].split()
                line = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if int(words[3]) == self.number and words[0] not in "ZX":
                    found.append(Process(int(place.name), int(words[1]), line))
        return found

    def send(self, kind: signal.Signals, target: str = "first") -> None:
        """Send a signal to the "first" process, the "second" or the "group".

        The second is the process with the same command line; without one, the first.
        """
        with contextlib.suppress(ProcessLookupError):
            if target == "group":
                os.killpg(self.number, kind)
                return
            found = self.processes()
            mine = [p.line for p in found if p.number == self.number]
            same = [
                p.number
                for p in found
                if target == "second" and p.parent == self.number and [p.line] == mine
            ]
            os.kill(next(iter(same), self.number), kind)

    def _said(self) -> tuple[str, str]:
        """Return what was printed, and close the files that it was printed to."""
        said = []
        for stream in (self._out, self._err):
            stream.seek(0)
            said.append(stream.read())
            stream.close()
        return said[0], said[1]


def environment() -> dict[str, str]:
    """Return the environment of a command: one thread, and compiled modules kept."""
    kept = str(Path(tempfile.gettempdir()) / f"compiled-{os.getuid()}")
    settings = {"OMP_NUM_THREADS": "1", "PYTHONPYCACHEPREFIX": kept}
    unwanted = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "PYTHONDONTWRITEBYTECODE")
    usual = {name: v for name, v in os.environ.items() if name not in unwanted}
    return {**settings, **usual, "OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def _interrupts_taken() -> Iterator[None]:
    """Let what the body starts take interrupts, although the shell ignores them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
