"""Records of the cost of methods, their table, and their lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich import box
from rich.table import Table

from benchmarks.measuring import wide_console

_WIDTH = 110
_HEADINGS = (
    *("seconds", "fastest", "slowest", "x plain"),
    *("passes", "peak MiB", "distance"),
)


@dataclass(frozen=True)
class CostRecord:
    """What one method costs on one problem.

    Attributes:
        problem: name of the problem.
        method: name of the method.
        seconds: seconds of a call, median of the rounds; None if the method fails.
        fastest: seconds of the fastest round.
        slowest: seconds of the slowest round.
        times_plain: ``seconds`` divided by the seconds of the plain step.
        peak_bytes: the most memory in use at once, minus the memory in use before the
            method's first call; None if the measurement failed.
        error: reason for missing figures, in one line.
        passes: arithmetic of a call as a number of forward passes: three times the
            method's multiplications in convolutions and matrix products, divided by
            those of the plain step (one forward and one backward pass). It does not
            depend on the speed of the machine. torch's formulas count the gradient of a
            grouped convolution's weights as many times as there are groups, so the
            passes of networks whose convolutions compute several tasks at once are too
            high. None if it was not counted.
        difference: relative distance ‖ĝ − g‖/‖g‖ of the gradient that the method's
            first call returns to that of the problem's exact reference method, in
            single precision; None without a gradient or without the reference.
    """

    problem: str
    method: str
    seconds: float | None = None
    fastest: float | None = None
    slowest: float | None = None
    times_plain: float | None = None
    peak_bytes: int | None = None
    error: str | None = None
    passes: float | None = None
    difference: float | None = None


def record_of(
    problem: str,
    method: str,
    seconds: Sequence[float],
    plain_step_seconds: Sequence[float],
    peak_bytes: int | None,
    error: str | None,
    passes: float | None,
    difference: float | None,
) -> CostRecord:
    """Return the record of a method that runs.

    Args:
        problem: name of the problem.
        method: name of the method.
        seconds: seconds of each round.
        plain_step_seconds: seconds of each round of the plain step.
        peak_bytes: as in :class:`CostRecord`.
        error: reason for missing figures, or None.
        passes: as in :class:`CostRecord`.
        difference: likewise.
    """
    return CostRecord(
        problem,
        method,
        median(seconds),
        min(seconds),
        max(seconds),
        median(seconds) / median(plain_step_seconds),
        peak_bytes,
        error,
        passes,
        difference,
    )


def print_records(records: Sequence[CostRecord]) -> None:
    """Print a table for each problem."""
    console = wide_console(_WIDTH)
    for problem in dict.fromkeys(record.problem for record in records):
        table = Table(title=problem, box=box.SIMPLE_HEAD)
        table.add_column("method", no_wrap=True)
        for heading in _HEADINGS:
            table.add_column(heading, justify="right", no_wrap=True)
        group = [record for record in records if record.problem == problem]
        for record in group:
            table.add_row(record.method, *_cells(record))
        console.print(table)
        for record in group:
            if record.error is not None:
                console.print(_failure(record), markup=False)


def line_of(record: CostRecord) -> str:
    """Return a record as one line, to print as soon as it is measured."""
    pairs = zip(_HEADINGS, _cells(record), strict=True)
    figures = ", ".join(f"{heading} {cell}" for heading, cell in pairs if cell != "-")
    parts = [figures or None, None if record.error is None else _failure(record)]
    shown = "; ".join(part for part in parts if part)
    return f"{record.problem} | {record.method}: {shown}"


def _failure(record: CostRecord) -> str:
    outcome = "fails" if record.seconds is None else "is incomplete"
    return f"{record.method} {outcome}: {record.error}"


def _cells(record: CostRecord) -> list[str]:
    if record.seconds is None:
        return ["-"] * len(_HEADINGS)
    seconds = (record.seconds, record.fastest, record.slowest)
    peak = "-" if record.peak_bytes is None else f"{record.peak_bytes / 2**20:.0f}"
    return [
        *(f"{figure:.3f}" for figure in seconds if figure is not None),
        f"{record.times_plain:.2f}",
        "-" if record.passes is None else f"{record.passes:.1f}",
        peak,
        "-" if record.difference is None else f"{record.difference:.1g}",
    ]
