"""Signals to every command at random moments, and the run that goes on afterwards.

A run is started in a session of its own. At a moment that the seed chooses, from the
start of the package to a little past the end of the run, a signal goes to the first
process, to the whole group, or to the second process of two. Ten seconds later no
process may be left, and one line has been printed. The run is resumed, perhaps killed
again, and then resumed to its end. Its numbers are those of an uninterrupted run.
"""

import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from faulty import INTERRUPTED, REFUSED, SAME, Ended, Family, Fault
from same_numbers import difference
from sessions import LIMIT, Session
from whole_runs import RUNS, whole_run

# Seconds that the interpreter takes before it loads the package. Until then the signals
# do what they always do.
_STARTING = 0.3

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)


def killed(name: str, kind: signal.Signals, seed: int, folder: Path) -> str:
    """Kill one of RUNS once or twice, let it go on, and compare its numbers.

    Args:
        name: name of the run.
        kind: the signal.
        seed: chooses the moments and who receives the signal.
        folder: empty folder.
    """
    run, whole = RUNS[name], whole_run(name)
    chance = random.Random(f"{name} {kind.name} {seed}")
    targets = ("first", "group", "second") if run.two else ("first", "group")
    said = SAME
    for _ in range(chance.choice((1, 1, 2))):
        target = chance.choice(targets)
        moment = chance.uniform(_STARTING, 1.05 * whole.seconds)
        session = run.start(folder / "run")
        began = time.monotonic()
        while session.running() and time.monotonic() < began + moment:
            time.sleep(0.01)
        session.send(kind, target)
        ended = session.end(LIMIT)
        what = f"{kind.name} to {target} after {moment:.2f} of {whole.seconds:.2f} s"
        said = _check(ended, kind, target, what)
    last = run.whole(folder / "run")
    different = difference(whole.outcome, last.outcome)
    if different:
        raise Fault(f"{what}, other numbers: {different}")
    return said


def _check(ended: Ended, kind: signal.Signals, target: str, what: str) -> str:
    """Return how a command ended after a signal.

    Raises:
        Fault: if it did not end as it should.
    """
    lines = ended.err.splitlines()
    if ended.code == 0 and not lines:
        return SAME  # it had ended already
    if kind == signal.SIGKILL and ended.code == -kind:
        return INTERRUPTED
    if len(lines) == 1:
        if kind == signal.SIGKILL and target == "second" and ended.code == 2:
            return REFUSED
        if kind != signal.SIGKILL and ended.code == 128 + kind:
            return INTERRUPTED
    raise Fault(f"{what}: {ended}")


def session_of(name: str, folder: Path) -> Session:
    """Start one of RUNS in a folder."""
    return RUNS[name].start(folder / "run")


def _kinds() -> dict[str, Callable[[int, Path], str]]:
    return {
        f"{kind.name} in {name}": partial(killed, name, kind)
        for name in RUNS
        for kind in _SIGNALS
    }


KINDS: Family = _kinds()
