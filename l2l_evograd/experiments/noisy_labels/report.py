"""The table of a finished noisy-label run."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from l2l_evograd.experiments.noisy_labels.results import TABLE_LOSSES


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
    if seeds > 1:
        notes.append(f"±: standard deviation over {seeds} seeds.")
    table.caption = " ".join(notes)
    table.add_column("method", no_wrap=True)
    for name in ("best", "last", "V", "s/iter.", "memory"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["method"],
            _percent(row["best"], row["best_sd"], seeds),
            _percent(row["last"], row["last_sd"], seeds),
            "" if row["v"] is None else _weights(row["v"]),
            f"{row['seconds_per_iteration']:.3f}",
            f"{row['peak_memory_bytes'] / 2**20:,.0f} MiB",
        )
    return table


def _weights(values: Sequence[float]) -> str:
    return "/".join(f"{value:.3f}".removeprefix("0") for value in values)


def _percent(value: float, spread: float, seeds: int) -> str:
    shown = f"{100 * value:.2f}"
    return f"{shown} ± {100 * spread:.2f} %" if seeds > 1 else f"{shown} %"
