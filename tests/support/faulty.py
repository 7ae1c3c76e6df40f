"""Faults that are done to the command line, and what came of them.

A kind of fault is a function ``(seed, folder) -> outcome``. It does one fault, which
the seed chooses, with files in an empty folder of its own. It returns one of OUTCOMES,
or raises a :class:`Fault` that says what went wrong: a traceback, a hang, other
numbers, or a success that is none. A family is a module with a mapping ``KINDS`` from a
description to such a function.
"""

import contextlib
import io
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from l2l_evograd import cli

SAME = "same numbers"  # the run ended as one without the fault
REFUSED = "refused in one line"  # exit code 2
INTERRUPTED = "interrupted in one line"  # exit code 128 + n; resumed, the same
HARMLESS = "harmless"  # the input is unusual but right, and was used
OUTCOMES = (SAME, REFUSED, INTERRUPTED, HARMLESS)

Kind = Callable[[int, Path], str]
Family = Mapping[str, Kind]


class Fault(AssertionError):
    """The software did not stand a fault."""


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
        code: exit code.
        out: standard output.
        err: standard error stream.
    """

    code: int
    out: str
    err: str


@contextlib.contextmanager
def within(seconds: int, what: str) -> Iterator[None]:
    """Raise a Fault where the body takes longer. Only in the main thread.

    The alarm ends what waits in Python or in a system call. A limit is far above what
    the body takes, so that a busy machine does not fail it.
    """

    def late(*_: object) -> None:
        raise Fault(f"{what}: still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def ended(arguments: Sequence[str], seconds: int = 120) -> Ended:
    """Run a command line in this process.

    Raises:
        Fault: if it raises an error or hangs.
    """
    out, err, shown = io.StringIO(), io.StringIO(), " ".join(map(repr, arguments))
    try:
        with (
            within(seconds, shown),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = cli.main([str(argument) for argument in arguments])
    except Fault:
        raise
    except SystemExit as leaving:
        raise Fault(f"{shown}: SystemExit({leaving.code})") from leaving
    except BaseException as error:
        raise Fault(f"{shown}: {type(error).__name__}: {error}") from error
    return Ended(code, out.getvalue(), err.getvalue())


def check_refused(result: Ended, *parts: str) -> str:
    """Return REFUSED if a command was refused in one line that contains ``parts``.

    Raises:
        Fault: if it was not.
    """
    lines = result.err.splitlines()
    if result.code != cli.BAD_INPUT or len(lines) != 1:
        raise Fault(f"expected one line and exit code 2, got {result}")
    if not lines[0].startswith("error: ") or "Traceback" in lines[0]:
        raise Fault(f"expected a line that begins with error:, got {lines[0]!r}")
    missing = [part for part in parts if part not in lines[0]]
    if missing:
        raise Fault(f"expected {missing} in {lines[0]!r}")
    return REFUSED


def tried(kinds: Family, times: int, first: int, make: Callable[[], Path]) -> Iterator:
    """Yield (description, seed, outcome or Fault) of every kind, ``times`` each.

    Args:
        kinds: the family.
        times: seeds for each kind.
        first: the first seed.
        make: function that makes an empty folder.
    """
    for description, kind in kinds.items():
        for seed in range(first, first + times):
            try:
                yield description, seed, kind(seed, make())
            except Fault as fault:
                yield description, seed, fault
