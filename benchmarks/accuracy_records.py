"""The table and the lines of an accuracy benchmark's records."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table


def table(records: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of the records."""
    shown = Table(title="Test accuracy in %, mean ± standard error over seeds")
    for heading in ("problem", "budget", "method"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("iterations", "seconds", "accuracy", "gain over the first"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        shown.add_row(*_cells(record))
    return shown


def _cells(record: Mapping[str, Any]) -> list[str]:
    return [
        record["problem"],
        record["budget"],
        record["method"],
        str(record["iterations"]),
        f"{record['training_seconds']:.1f}",
        f"{100 * record['accuracy']:.2f} ± {100 * record['accuracy_error']:.2f}",
        f"{100 * record['gain']:+.2f} ± {100 * record['gain_error']:.2f}",
    ]


def line_of(record: Mapping[str, Any]) -> str:
    """Return a record as one line, to print as soon as it is measured."""
    problem, budget, method, *figures = _cells(record)
    names = ("iterations", "seconds", "accuracy", "gain")
    parts = ", ".join(f"{n} {f}" for n, f in zip(names, figures, strict=True))
    return f"{problem}, {budget} | {method}: {parts}"
