"""The picture of a search run."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from l2l_evograd.experiments import pictures
from l2l_evograd.experiments.results import RunResults
from l2l_evograd.experiments.search.problem import Problem
from l2l_evograd.experiments.search.results import best_of

_COLOURS = {
    "dehb": pictures.VERMILION,
    "random": pictures.GREY,
    "tpe": pictures.BLUE,
}

# Colours of the trainings by their length, from short to long.
_LENGTHS = ("#cfe3ef", pictures.SKY, pictures.BLUE, pictures.INK)

_COLUMNS = 3
# A diverged training, and a loss above that quantile, is drawn at the upper edge.
_HIGHEST = 0.9


def draw_search(results: RunResults, problem: Problem, path: Path) -> None:
    """Draw the lowest loss over what was spent, and the losses over each setting.

    Args:
        results: results of the run.
        problem: what was searched.
        path: path of the PNG, which is written whole or not at all.
    """
    count = 1 + len(problem.space)
    columns = min(count, _COLUMNS)
    lines = -(-count // columns)
    figure = Figure(figsize=(3.3 * columns, 2.9 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).flatten().tolist()
    figure.suptitle(f"Settings of {problem.command}, {problem.method}", fontsize=11)
    _draw_spent(grid[0], results, problem)
    tried = [evaluation for run in results.runs for evaluation in run["evaluations"]]
    top = _top(evaluation["loss"] for evaluation in tried)
    best = best_of(results.runs)
    for place, (name, values) in enumerate(problem.space.items(), start=1):
        axes, first = grid[place], place == 1 or place % columns == 0
        _draw_setting(axes, name, problem, tried, top, first)
        if best is not None:
            axes.axvline(
                _place(values, best["best"][name]),
                color=pictures.VERMILION,
                linewidth=1,
                label="best settings",
            )
    for axes in grid[count:]:
        axes.set_axis_off()
    handles, labels = grid[1].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=8
    )
    pictures.save(figure, path)


def _draw_spent(axes: Axes, results: RunResults, problem: Problem) -> None:
    """Draw the lowest loss of a whole training over what a search had spent."""
    settings: Any = results.settings
    for method in settings.methods:
        for number, run in enumerate(results.of(method)):
            spent, lowest, points = 0.0, math.inf, []
            for evaluation in run["evaluations"]:
                spent += evaluation["fidelity"] / problem.high
                if evaluation["fidelity"] == problem.high:
                    loss = evaluation["loss"]
                    lowest = min(lowest, math.inf if loss is None else loss)
                if math.isfinite(lowest):
                    points.append((spent, lowest))
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    drawstyle="steps-post",
                    color=_COLOURS[method],
                    label=None if number else method,
                )
    for run in results.runs:
        losses = [loss for loss in run["losses"] if loss is not None]
        axes.plot(
            [settings.budget * 1.04] * len(losses),
            losses,
            marker="<",
            markersize=4,
            linestyle="",
            color=_COLOURS[run["method"]],
        )
    axes.plot([], [], "<", markersize=4, color=pictures.INK, label="found, fresh")
    default = results.summary()[0]["loss"]
    if default is not None:
        axes.axhline(
            default,
            color=pictures.INK,
            linestyle="--",
            linewidth=1,
            label="defaults, fresh",
        )
    axes.set_xlim(0, settings.budget * 1.08)
    axes.set_xlabel(f"spent, in trainings of {problem.high}")
    axes.set_ylabel("lowest validation loss seen")
    pictures.without_frame(axes, "both")
    axes.legend(frameon=False, fontsize=8)


def _draw_setting(
    axes: Axes,
    name: str,
    problem: Problem,
    tried: Sequence[Any],
    top: float,
    first: bool,
) -> None:
    """Draw the loss of every training over one setting, by length."""
    lengths = sorted({evaluation["fidelity"] for evaluation in tried})
    values = problem.space[name]
    for number, length in enumerate(lengths):
        own = [e for e in tried if e["fidelity"] == length]
        x = [_place(values, e["config"][name]) for e in own]
        y = [top if e["loss"] is None else min(e["loss"], top) for e in own]
        colour = _LENGTHS[round(number * 3 / max(1, len(lengths) - 1))]
        axes.scatter(
            x,
            y,
            s=14,
            color=colour,
            label=f"{length} {problem.searched.fidelity}",
            zorder=2 + number,
        )
    if isinstance(values, list):
        axes.set_xticks(range(len(values)), [str(value) for value in values])
    elif len(values) == 3:
        axes.set_xscale("log")
        axes.set_xlim(values[0] / 1.2, values[1] * 1.2)
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        margin = (values[1] - values[0]) / 20
        axes.set_xlim(values[0] - margin, values[1] + margin)
        axes.xaxis.set_major_locator(MaxNLocator(integer=isinstance(values[0], int)))
    axes.set_xlabel(name)
    if first:
        axes.set_ylabel("validation loss")
    pictures.without_frame(axes, "both")


def _place(values: Any, value: Any) -> Any:
    return values.index(value) if isinstance(values, list) else value


def _top(losses: Iterable[float | None]) -> float:
    known = sorted(loss for loss in losses if loss is not None)
    if not known:
        return 1.0
    return 1.1 * known[min(len(known) - 1, int(_HIGHEST * len(known)))]
