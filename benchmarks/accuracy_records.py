"""The records of an accuracy benchmark: how they are made, and shown in tables."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from rich.table import Table

from benchmarks.accuracy_problems import COLUMNS, NONE, Problem, Training
from l2l_evograd.experiments.results import deviation
from l2l_evograd.experiments.verdicts import difference

Record = dict[str, Any]
ITERATIONS, TIME = "equal iterations", "equal time"


def records_of(
    problem: Problem,
    budget: str,
    iterations: Mapping[str, int],
    trainings: Mapping[str, Sequence[Training]],
) -> list[Record]:
    """Return one record for each method.

    The gain of a method is its mean difference to no learning, paired by seed, with its
    standard error, and positive where it is better. Whether it is shown is decided by
    :mod:`l2l_evograd.experiments.verdicts`.

    Args:
        problem: the problem.
        budget: :data:`ITERATIONS` or :data:`TIME`.
        iterations: number of iterations of each method, by the problem's own names.
        trainings: one training for each seed, by the same names.
    """
    sign = 1 if problem.accuracy else -1
    first = [sign * one.quality for one in trainings[problem.methods[NONE]]]
    records = []
    for column, method in problem.methods.items():
        qualities = [one.quality for one in trainings[method]]
        gain = difference([sign * value for value in qualities], first)
        seconds = fmean(one.seconds_per_iteration for one in trainings[method])
        records.append(
            {
                "problem": problem.name,
                "quality": problem.quality,
                "accuracy": problem.accuracy,
                "budget": budget,
                "column": column,
                "method": method,
                "iterations": iterations[method],
                "seconds_per_iteration": seconds,
                "training_seconds": iterations[method] * seconds,
                "qualities": qualities,
                "mean": fmean(qualities),
                "error": deviation(qualities) / len(qualities) ** 0.5,
                "gain": gain.mean,
                "gain_error": gain.error,
                "shown": gain.shown,
            }
        )
    return records


def table(records: Sequence[Record]) -> Table:
    """Return a table of the records, one row for each."""
    shown = Table(title="Mean ± standard error over seeds; gain over no learning")
    for heading in ("problem", "budget", "method"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("iterations", "seconds", "quality", "gain"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        shown.add_row(*_cells(record))
    return shown


def line_of(record: Record) -> str:
    """Return a record as one line, to print as soon as it is measured."""
    problem, budget, method, *figures = _cells(record)
    names = ("iterations", "seconds", record["quality"], "gain")
    parts = ", ".join(f"{n} {f}" for n, f in zip(names, figures, strict=True))
    return f"{problem}, {budget} | {method}: {parts}"


def markdown(records: Sequence[Record], budget: str) -> list[str]:
    """Return a table in Markdown: rows are problems, columns ways of learning.

    A cell holds the mean and, in brackets, the gain over no learning. A gain that is
    shown is in bold; a loss that is shown is marked.

    Args:
        records: records of any budget.
        budget: the budget of the table.
    """
    lines = [
        f"| {budget} | {' | '.join(COLUMNS)} |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    own = [record for record in records if record["budget"] == budget]
    for problem in dict.fromkeys(record["problem"] for record in own):
        found = {r["column"]: r for r in own if r["problem"] == problem}
        quality = found[NONE]["quality"]
        unit = ", %" if found[NONE]["accuracy"] else ", lower is better"
        cells = [_cell(found[c]) if c in found else "" for c in COLUMNS]
        lines.append(f"| {problem} ({quality}{unit}) | {' | '.join(cells)} |")
    return lines


def _cell(record: Record) -> str:
    mean = _number(record, record["mean"])
    if record["column"] == NONE:
        return mean
    gain = f"{_number(record, record['gain'], '+')} ± " + _number(
        record, record["gain_error"]
    )
    if not record["shown"]:
        return f"{mean} ({gain})"
    return f"**{mean} ({gain})**" if record["gain"] > 0 else f"{mean} ({gain}: worse)"


def _number(record: Record, value: float, sign: str = "") -> str:
    return f"{100 * value:{sign}.1f}" if record["accuracy"] else f"{value:{sign}.3f}"


def _cells(record: Record) -> list[str]:
    return [
        record["problem"],
        record["budget"],
        record["method"],
        str(record["iterations"]),
        f"{record['training_seconds']:.1f}",
        f"{_number(record, record['mean'])} ± {_number(record, record['error'])}",
        f"{_number(record, record['gain'], '+')} ± "
        f"{_number(record, record['gain_error'])}",
    ]
