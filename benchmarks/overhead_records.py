"""Records of methods on small tasks, and their table."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

_HEADINGS = ("ms", "fastest", "slowest", "ratio", "least", "most", "difference")


@dataclass(frozen=True)
class OverheadRecord:
    """Time that one method takes for one gradient.

    Attributes:
        problem: name of the problem: the network and what is computed.
        method: name of the method.
        reference: name of the method that it is compared with.
        seconds: seconds of a call, median of the rounds; None if the method fails or
            returns a different gradient.
        fastest: seconds of a call in the fastest round.
        slowest: seconds of a call in the slowest round.
        ratio: seconds divided by those of the reference in the same round, median.
        ratio_least: smallest ratio of a round.
        ratio_most: largest ratio of a round.
        difference: largest difference to an entry of the reference's gradient, divided
            by the largest entry, in double precision; None if the methods are random.
        calls: number of calls in a round.
        error: reason for missing figures, in one line.
    """

    problem: str
    method: str
    reference: str
    seconds: float | None = None
    fastest: float | None = None
    slowest: float | None = None
    ratio: float | None = None
    ratio_least: float | None = None
    ratio_most: float | None = None
    difference: float | None = None
    calls: int | None = None
    error: str | None = None


def table(records: Sequence[OverheadRecord]) -> Table:
    """Return a table of the records of one problem."""
    first = records[0]
    found = Table(
        title=f"{first.problem} (ratio to {first.reference})", box=box.SIMPLE_HEAD
    )
    found.add_column("method", no_wrap=True)
    for heading in _HEADINGS:
        found.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        times = (record.seconds, record.fastest, record.slowest)
        ratios = (record.ratio, record.ratio_least, record.ratio_most)
        found.add_row(
            record.method if record.error is None else f"{record.method}: not timed",
            *("-" if s is None else f"{1e3 * s:.3f}" for s in times),
            *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
            "-" if record.difference is None else f"{record.difference:.0e}",
        )
    return found
