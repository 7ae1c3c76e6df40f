"""The table of a schedules run, and what it shows in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from l2l_evograd.experiments.results import RunResults
from l2l_evograd.experiments.schedules.methods import BASELINE, METHODS
from l2l_evograd.experiments.schedules.results import test_losses
from l2l_evograd.experiments.schedules.settings import SchedulesSettings
from l2l_evograd.experiments.verdicts import LEAST_SEEDS, Difference, paired


def results_table(
    rows: Sequence[Mapping[str, Any]], settings: SchedulesSettings, title: str
) -> Table:
    """Return the summary of a run as a table.

    Args:
        rows: rows from :meth:`~.results.SchedulesResults.summary`.
        settings: settings of the run.
        title: title above the table.
    """
    seeds = max(row["seeds"] for row in rows)
    table = Table(title=title)
    table.caption = (
        f"New training runs with each found schedule, {settings.fresh_seeds} for each "
        f"{'search' if seeds == 1 else f'of {seeds} searches'}. Mean loss of the "
        f"validation images; mean loss and accuracy in % of the test images"
        + (" ± standard deviation between searches" if seeds > 1 else "")
        + "; spread: standard deviation between the new runs of a search. seen: lowest "
        "validation loss that a search saw. s: seconds of a search."
    )
    table.add_column("method", no_wrap=True)
    columns = {
        "seen": lambda row: _number(row["searched_loss"], 1, 3),
        "val.": lambda row: _number(row["validation_loss"], 1, 3),
        "test loss": lambda row: _mean(row, "test_loss", 1, 3, seeds),
        "spread": lambda row: _number(row["test_loss_fresh_sd"], 1, 3),
        "accuracy": lambda row: _mean(row, "test_accuracy", 100, 1, seeds),
        "s": lambda row: f"{row['seconds']:.0f}",
    }
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row["method"], *(cell(row) for cell in columns.values()))
    return table


def conclusions(results: RunResults) -> list[str]:
    """Return one line for each comparison of two methods by their test losses.

    Every method is compared with ``constant``, or with the first method if it is
    missing; exact hypergradients also with ``greedy``, and DEHB with random search.

    Args:
        results: results of the run.
    """
    methods = [name for name in results.settings.methods if results.of(name)]
    lines = []
    for name in methods:
        lost = [fresh for run in results.of(name) for fresh in run["fresh"]].count(None)
        if lost:
            fresh = sum(len(run["fresh"]) for run in results.of(name))
            lines.append(f"{name}: {lost} of {fresh} new training runs diverged.")
    baseline = BASELINE if BASELINE in methods else methods[0]
    pairs = [(method, baseline) for method in methods if method != baseline]
    for method in methods:
        control = METHODS[method].control
        if control in methods and control != baseline:
            pairs.append((method, control))
    compared = [
        sentence(own, other, found)
        for own, other in pairs
        for found in [paired(test_losses(results, own), test_losses(results, other))]
        if found is not None
    ]
    if compared:
        lines.append("Test loss of the new training runs:")
    return [*lines, *compared]


def sentence(name: str, other: str, difference: Difference) -> str:
    """Return one line that says whether two methods differ in test loss.

    Args:
        name: name of the method.
        other: name of the method that it is compared with.
        difference: from :func:`~l2l_evograd.experiments.verdicts.paired`.
    """
    mean, error, seeds = difference.mean, difference.error, difference.seeds
    if seeds < LEAST_SEEDS:
        return (
            f"{name} against {other}: {mean:+.4f} over {seeds} "
            f"{'search' if seeds == 1 else 'searches'}: nothing can be said about "
            f"other seeds; use at least {LEAST_SEEDS}."
        )
    if not difference.shown:
        return (
            f"{name} against {other}: {mean:+.4f} ± {error:.4f} over {seeds} "
            f"searches: not shown."
        )
    return (
        f"Over {seeds} searches, {name} is {abs(mean):.4f} ± {error:.4f} "
        f"{'above' if mean > 0 else 'below'} {other} (mean ± standard error, paired by "
        f"seed): shown."
    )


def _mean(
    row: Mapping[str, Any], name: str, scale: float, digits: int, seeds: int
) -> str:
    if row[name] is None:
        return "diverged"
    value = _number(row[name], scale, digits)
    if seeds == 1:
        return value
    return f"{value} ± {_number(row[f'{name}_sd'], scale, digits)}"


def _number(value: float | None, scale: float, digits: int) -> str:
    return "" if value is None else f"{scale * value:.{digits}f}"
