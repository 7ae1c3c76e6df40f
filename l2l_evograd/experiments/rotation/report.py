"""The table and the two pictures of a rotation run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from rich.table import Table

from l2l_evograd.data.digits import ANGLE
from l2l_evograd.experiments import pictures

_COLOURS = {
    "none": pictures.GREY,
    "exact": pictures.BLUE,
    "evograd": pictures.VERMILION,
    "guided": pictures.GREEN,
}


def results_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the summary of a rotation run as a table with one row for each method."""
    seeds = max(row["seeds"] for row in rows)
    table = Table(title=f"Digits turned by {ANGLE:.0f} degrees")
    table.caption = (
        "One seed. Results can differ much between seeds; --seeds shows the spread."
        if seeds == 1
        else f"Mean ± standard deviation over {seeds} seeds."
    )
    table.add_column("method", no_wrap=True)
    for name in ("accuracy", "turned back", "angle", "s/iter."):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["method"],
            _figure(row, "accuracy", 100, " %", seeds),
            _figure(row, "accuracy_back", 100, " %", seeds),
            "" if row["angle"] is None else _figure(row, "angle", 1, "°", seeds),
            f"{row['seconds_per_iteration']:.3f}",
        )
    return table


def draw_angles(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the angle over the iterations, with mean and standard deviation over seeds.

    Args:
        runs: results of :func:`~.problem.train`. Methods that do not learn an angle are
            left out.
        path: path of the PNG, which is written whole or not at all.
    """
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(
        ANGLE, color=pictures.INK, linewidth=1, linestyle="--", label="true angle"
    )
    for method in dict.fromkeys(run["method"] for run in runs):
        curves = [run["curve"] for run in runs if run["method"] == method]
        if curves[0] is None:
            continue
        iterations = [point[0] for point in curves[0]]
        angles = torch.tensor([[point[1] for point in curve] for curve in curves])
        mean, sd = angles.mean(dim=0), angles.std(dim=0, correction=0)
        if len(curves) > 1:
            sd *= (len(curves) / (len(curves) - 1)) ** 0.5
        colour = _COLOURS[method]
        axes.plot(iterations, mean, color=colour, label=method)
        axes.fill_between(
            iterations, mean - sd, mean + sd, color=colour, alpha=0.18, linewidth=0
        )
    axes.set_xlabel("iteration")
    axes.set_ylabel("learned angle, degrees")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    pictures.without_frame(axes)
    pictures.save(figure, path)


def draw_accuracies(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw two bars for each method: accuracy on turned and on turned-back digits.

    Args:
        rows: one row for each method.
        path: path of the PNG, which is written whole or not at all.
    """
    figure = Figure(figsize=(1.8 + 1.1 * max(len(rows), 2), 3.4), layout="constrained")
    axes = figure.add_subplot()
    for offset, name, strength in (
        (-0.2, "accuracy", 1.0),
        (0.2, "accuracy_back", 0.4),
    ):
        bars = axes.bar(
            [position + offset for position in range(len(rows))],
            [row[name] for row in rows],
            width=0.38,
            yerr=[row[f"{name}_sd"] for row in rows],
            capsize=3,
            color=[_COLOURS[row["method"]] for row in rows],
            alpha=strength,
            error_kw={"elinewidth": 1.1, "ecolor": pictures.INK},
            label="test digits, turned" if offset < 0 else "the same, turned back",
        )
        axes.bar_label(
            bars,
            [f"{100 * row[name]:.1f}" for row in rows],
            padding=2,
            fontsize=8,
        )
    axes.set_xticks(range(len(rows)), [row["method"] for row in rows])
    axes.set_ylim(0, 1.25)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("accuracy")
    axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)
    pictures.without_frame(axes)
    pictures.save(figure, path)


def _figure(
    row: Mapping[str, Any], name: str, scale: float, unit: str, seeds: int
) -> str:
    value, sd = scale * row[name], scale * row[f"{name}_sd"]
    return f"{value:.2f}{unit}" if seeds == 1 else f"{value:.2f} ± {sd:.2f}{unit}"
