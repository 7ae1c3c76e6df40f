"""What is recorded of a method on a small task, and the table of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

_HEADINGS = ("ms", "fastest", "slowest", "ratio", "least", "most", "difference")


@dataclass(frozen=True)
class Record:
    """What one method takes for one gradient.

    Attributes:
        problem: network, and what is computed.
        method: its name.
        reference: the method that it is compared with.
        seconds: of a call, median of the rounds; None if the method does not run or
            gives another gradient.
        fastest: of the rounds.
        slowest: of the rounds.
        ratio: of seconds to those of the reference in the same round, median.
        ratio_least: of the rounds.
        ratio_most: of the rounds.
        difference: from the reference's gradient, the largest of an entry by the
            largest entry, in double precision; None where both draw at random.
        calls: in a round.
        error: why there are no figures, in one line.
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


def table(records: Sequence[Record]) -> Table:
    """Return the table of one problem."""
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
