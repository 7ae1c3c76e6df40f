"""Records of what the hypergradient of a whole run costs, and their lines."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.whole_runs_problems import Work


@dataclass(frozen=True)
class RunRecord:
    """What one method costs on one training run.

    Attributes:
        network: name of the network.
        steps: number T of steps.
        learned: what is learned.
        count: number N of values that are learned.
        method: name of the method.
        seconds: processor seconds of the fastest call; None if the method fails.
        slowest: those of the slowest call.
        passed: seconds that passed in the quickest call, more than ``seconds`` if
            other work shared the processor.
        calls: number of timed calls. If there is one, it is also the first one.
        peak_bytes: the most memory in use at once in the first call, minus the memory
            in use before.
        difference: relative distance ‖ĝ − g‖/‖g‖ of the hypergradient, in single
            precision, to that of ``unrolled_sgd`` in double precision; None if that
            was not computed.
        load: the machine's load average over the minute before the last call ended: 1
            if nothing else ran.
        error: reason for missing figures, in one line.
    """

    network: str
    steps: int
    learned: str
    count: int
    method: str
    seconds: float | None = None
    slowest: float | None = None
    passed: float | None = None
    calls: int = 0
    peak_bytes: int | None = None
    difference: float | None = None
    load: float | None = None
    error: str | None = None


def record_of(
    work: Work,
    method: str,
    seconds: Sequence[tuple[float, float]],
    peak_bytes: int | None,
    difference: float | None,
    load: float,
    error: str | None,
) -> RunRecord:
    """Return the record of a method.

    Args:
        work: the run.
        method: name of the method.
        seconds: of each call, processor time and time that passed; empty if the first
            call failed.
        peak_bytes: as in :class:`RunRecord`.
        difference: likewise.
        load: likewise.
        error: likewise.
    """
    processor = [own for own, _ in seconds]
    return RunRecord(
        work.network,
        work.steps,
        work.learned,
        work.count,
        method,
        min(processor, default=None),
        max(processor, default=None),
        min((passed for _, passed in seconds), default=None),
        len(seconds),
        peak_bytes,
        difference,
        load,
        error,
    )


def line_of(record: RunRecord) -> str:
    """Return a record as one line."""
    name = (
        f"{record.network}, T = {record.steps}, {record.count} {record.learned} | "
        f"{record.method}: "
    )
    if record.seconds is None:
        return f"{name}fails: {record.error}"
    peak = "-" if record.peak_bytes is None else f"{record.peak_bytes / 2**20:.0f}"
    difference = "-" if record.difference is None else f"{record.difference:.1g}"
    line = (
        f"{name}{record.seconds:.2f} s ({record.passed:.2f} s passed), fastest of "
        f"{record.calls}, {peak} MiB, distance {difference}, load {record.load:.1f}"
    )
    return line if record.error is None else f"{line}; incomplete: {record.error}"


def crossing(
    rising: Sequence[tuple[int, float]], other: Sequence[tuple[int, float]]
) -> float | None:
    """Return where one curve first rises above another, on logarithmic axes.

    Args:
        rising: places and values of the curve that starts below.
        other: the other curve; places that only one of the two has are left out.

    Returns:
        The place; None if the curve does not start below, or stays there.
    """
    there = dict(other)
    gaps = [(x, math.log(y / there[x])) for x, y in rising if x in there]
    for (left, before), (right, after) in zip(gaps, gaps[1:], strict=False):
        if before < 0 <= after:
            share = before / (before - after)
            return math.exp(math.log(left) + share * math.log(right / left))
    return None
