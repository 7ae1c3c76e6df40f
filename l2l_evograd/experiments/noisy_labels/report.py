"""The table of a finished noisy-label run, and what it shows in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from l2l_evograd.experiments.noisy_labels.methods import METHODS
from l2l_evograd.experiments.noisy_labels.results import TABLE_LOSSES, last_by_seed
from l2l_evograd.experiments.results import RunResults
from l2l_evograd.experiments.verdicts import paired, sentence


def results_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Return the summary of a run as a table.

    Args:
        rows: rows from :meth:`~.results.NoisyLabelResults.summary`.
        title: title above the table.
    """
    seeds = max(row["seeds"] for row in rows)
    table = Table(title=title)
    starts = [row["v_start"] for row in rows if row["v_start"] is not None]
    notes = []
    if starts:
        places = "/".join(f"{loss:g}" for loss in TABLE_LOSSES)
        notes.append(
            f"V: weight of a sample whose loss is {places}; {_weights(starts[0])} "
            f"before training. A method that does not change V has learned nothing."
        )
    shares = any(row["wrong_share"] is not None for row in rows)
    if shares:
        notes.append(
            f"wrong: share of all weight, at the end, that is on samples with wrong "
            f"labels; {rows[0]['wrong_labels']:.0%} of the labels are wrong."
        )
    if len(rows) > 1:
        notes.append(f"gain: last, against {rows[0]['method']}.")
    if seeds > 1:
        notes.append(
            f"±: standard deviation over {seeds} seeds; of a gain, standard error, "
            f"paired by seed."
        )
    table.caption = " ".join(notes)
    table.add_column("method", no_wrap=True)
    columns = {
        "best": lambda row: _percent(row["best"], row["best_sd"], seeds),
        "last": lambda row: _percent(row["last"], row["last_sd"], seeds),
        "gain": lambda row: _gain(row, seeds),
        "V": lambda row: "" if row["v"] is None else _weights(row["v"]),
        "wrong": lambda row: _share(row["wrong_share"]),
        "s/iter.": lambda row: f"{row['seconds_per_iteration']:.3f}",
        "memory": lambda row: f"{row['peak_memory_bytes'] / 2**20:,.0f} MiB",
    }
    if len(rows) == 1:
        del columns["gain"]
    if not starts:
        del columns["V"]
    if not shares:
        del columns["wrong"]
    for name in columns:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(row["method"], *(cell(row) for cell in columns.values()))
    return table


def conclusions(results: RunResults) -> list[str]:
    """Return one line for each comparison of two methods.

    Controls are compared with the first method. Learned methods are compared with the
    best method that does not learn, so that what is shown is due to learning.

    Args:
        results: results of the run.
    """
    rows = results.summary()
    controls = [row for row in rows if not METHODS[row["method"]].learned]
    if len(rows) < 2 or not controls:
        return []
    best = max(controls, key=lambda row: float(row["last"]))["method"]
    lines = [
        f"Accuracy after the last iteration; {best} is the best method without "
        f"learning:"
    ]
    for row in rows:
        learned = METHODS[row["method"]].learned
        other = best if learned else controls[0]["method"]
        if other == row["method"]:
            continue
        found = paired(
            last_by_seed(results, row["method"]), last_by_seed(results, other)
        )
        if found is not None:
            lines.append(sentence(row["method"], other, found))
    return lines


def _gain(row: Mapping[str, Any], seeds: int) -> str:
    if row["gain"] is None:
        return ""
    shown = f"{100 * row['gain']:+.1f}"
    return f"{shown} ± {100 * row['gain_error']:.1f} %" if seeds > 1 else f"{shown} %"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _weights(values: Sequence[float]) -> str:
    return "/".join(f"{value:.3f}".removeprefix("0") for value in values)


def _percent(value: float, spread: float, seeds: int) -> str:
    shown = f"{100 * value:.1f}"
    return f"{shown} ± {100 * spread:.1f} %" if seeds > 1 else f"{shown} %"
