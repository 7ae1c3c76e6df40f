"""The pictures of a finished few-shot run."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from l2l_evograd.experiments import pictures
from l2l_evograd.experiments.fewshot.methods import METHODS
from l2l_evograd.experiments.fewshot.results import mean_curve
from l2l_evograd.experiments.results import RunResults

# The colour and line style of each method in all pictures. A family shares a colour
# where possible; first-order and frozen variants are dashed.
METHOD_LINES: dict[str, tuple[str, Any]] = {
    "maml": (pictures.BLUE, "-"),
    "fomaml": (pictures.BLUE, (0, (4, 1.5))),
    "anil": (pictures.SKY, "-"),
    "meta-sgd": (pictures.SKY, (0, (4, 1.5))),
    "warpgrad": (pictures.VERMILION, "-"),
    "warpgrad-fo": (pictures.VERMILION, (0, (4, 1.5))),
    "evograd": (pictures.ORANGE, "-"),
    "warpgrad-frozen": (pictures.GREY, (0, (1, 1.2))),
    "reptile": (pictures.GREEN, "-"),
    "aruba": (pictures.PURPLE, "-"),
    "aruba++": (pictures.PURPLE, (0, (4, 1.5))),
}


def draw_adaptation(results: RunResults, title: str, path: Path) -> None:
    """Draw the accuracy on new classes over the steps of adaptation.

    Args:
        results: results of the run.
        title: title above the picture.
        path: path of the PNG, which is written whole or not at all.
    """
    settings: Any = results.settings
    figure, axes = _axes(title)
    _mark_chance(axes, settings.ways)
    for method in settings.methods:
        runs = results.of(method)
        if runs:
            curve = mean_curve([run["adaptation"] for run in runs])
            style = _style(method)
            axes.plot(range(len(curve)), curve, label=method, **style)
            own = settings.steps_of(METHODS[method])
            if own < len(curve):
                axes.plot(own, curve[own], "o", markersize=5, color=style["color"])
    axes.set_xlim(0, settings.test_steps)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("steps of adaptation (dot: as many as in meta-training)")
    axes.set_ylabel("accuracy, new classes")
    _finish(axes)
    pictures.save(figure, path)


def draw_training(results: RunResults, title: str, path: Path) -> None:
    """Draw the accuracy on validation classes over meta-training.

    Its axis is the budget: gradients, or seconds if the budget is in seconds.

    Args:
        results: results of the run.
        title: title above the picture.
        path: path of the PNG, which is written whole or not at all.
    """
    settings: Any = results.settings
    figure, axes = _axes(title)
    timed = settings.budget is None
    unit = "process_seconds" if timed else "gradients"
    _mark_chance(axes, settings.ways)
    for method in settings.methods:
        runs = results.of(method)
        if not runs:
            continue
        # Seeds have the same number of points, at the same shares of the budget.
        points = min(len(run["curve"]) for run in runs)
        curves = [run["curve"][:points] for run in runs]
        spent = [
            [run[unit] * p["iteration"] / run["iterations"] for p in run["curve"]]
            for run in runs
        ]
        places = mean_curve([own[:points] for own in spent])
        mean = mean_curve([[p["accuracy"] for p in curve] for curve in curves])
        axes.plot(places, mean, label=method, **_style(method))
    axes.set_xlim(0, None if timed else settings.budget)
    if timed:
        axes.set_xlabel("process time, seconds")
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g}"))
        axes.set_xlabel("thousands of gradients in meta-training")
    axes.set_ylabel("accuracy, validation classes")
    _finish(axes)
    pictures.save(figure, path)


def _axes(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g} %"))
    return figure, axes


def _mark_chance(axes: Axes, ways: int) -> None:
    axes.axhline(1 / ways, color=pictures.GREY, linewidth=0.8)
    axes.annotate(
        "chance",
        (1, 1 / ways),
        xycoords=("axes fraction", "data"),
        xytext=(-3, 3),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color=pictures.GREY,
    )


def _style(method: str) -> dict[str, Any]:
    colour, line = METHOD_LINES[method]
    return {"color": colour, "linestyle": line, "linewidth": 1.8}


def _finish(axes: Axes) -> None:
    pictures.without_frame(axes, "both")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5)
        )
