"""The pictures of a schedules run."""

import math
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from l2l_evograd.experiments import pictures
from l2l_evograd.experiments.results import RunResults

# The colour and line style of each method in all pictures; controls are dashed.
METHOD_LINES: dict[str, tuple[str, Any]] = {
    "constant": (pictures.GREY, "-"),
    "cosine": (pictures.INK, "-"),
    "greedy": (pictures.ORANGE, (0, (4, 1.5))),
    "fds": (pictures.BLUE, "-"),
    "reversible": (pictures.VERMILION, "-"),
    "reversible-steps": (pictures.PURPLE, "-"),
    "dehb": (pictures.GREEN, "-"),
    "random": (pictures.SKY, (0, (4, 1.5))),
}

# Number of points of a curve over the budget.
_POINTS = 400

# The largest loss that is shown, in units of the lowest one at the end.
_SHOWN = 1.6


def draw_schedules(results: RunResults, title: str, path: Path) -> None:
    """Draw the found learning rates over the steps, the mean over the searches.

    Args:
        results: results of the run.
        title: title above the picture.
        path: path of the PNG, which is written whole or not at all.
    """
    settings: Any = results.settings
    figure, axes = _axes(title)
    steps = settings.steps
    for method in settings.methods:
        found = [run["schedule"] for run in results.of(method)]
        found = [rates for rates in found if rates is not None]
        if not found:
            continue
        means = [
            fmean(rates[step * len(rates) // steps] for rates in found)
            for step in range(steps)
        ]
        if len(found[0]) == steps:  # a smooth line, without a stair for each step
            axes.plot(range(steps), means, label=method, **_style(method))
        else:
            edges = range(steps + 1)
            axes.stairs(means, edges, baseline=None, label=method, **_style(method))
    axes.set_xlim(0, steps)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step of the training run")
    axes.set_ylabel("learning rate" + _mean_over(results))
    _finish(axes)
    pictures.save(figure, path)


def draw_budget(results: RunResults, title: str, path: Path) -> None:
    """Draw the lowest outer loss so far over the gradients spent.

    It is the mean over the searches, from where each of them has made a whole run.
    Losses far above the last ones are not shown.

    Args:
        results: results of the run.
        title: title above the picture.
        path: path of the PNG, which is written whole or not at all.
    """
    settings: Any = results.settings
    figure, axes = _axes(title)
    ends: list[float] = []
    places = [settings.budget * n / _POINTS for n in range(_POINTS + 1)]
    for method in settings.methods:
        curves = [run["curve"] for run in results.of(method)]
        points = []
        for place in places:
            lowest = [_lowest(curve, place) for curve in curves]
            if lowest and math.isfinite(max(lowest)):
                points.append((place, fmean(lowest)))
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, label=method, drawstyle="steps-post", **_style(method))
            ends.append(y[-1])
    axes.set_xlim(0, settings.budget)
    if ends:
        # The first losses are far above the last ones, which differ by little.
        axes.set_ylim(0.8 * min(ends), _SHOWN * min(ends))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g}"))
    axes.set_xlabel("thousands of gradients in the search")
    axes.set_ylabel("lowest validation loss seen" + _mean_over(results))
    _finish(axes)
    pictures.save(figure, path)


def _lowest(curve: list[list[float]], place: float) -> float:
    return min((loss for spent, loss in curve if spent <= place), default=math.inf)


def _mean_over(results: RunResults) -> str:
    seeds = results.settings.seeds
    return "" if seeds == 1 else f", mean of {seeds}"


def _axes(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    return figure, axes


def _style(method: str) -> dict[str, Any]:
    colour, line = METHOD_LINES[method]
    return {"color": colour, "linestyle": line, "linewidth": 1.8}


def _finish(axes: Axes) -> None:
    pictures.without_frame(axes, "both")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5)
        )
