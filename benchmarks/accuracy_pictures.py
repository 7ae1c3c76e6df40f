"""Picture of an accuracy benchmark: the gain of learning λ on each problem."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.accuracy_problems import COLUMNS, EVOGRAD, EXACT, FIXED, GUIDED, PAPER
from l2l_evograd.experiments import pictures

_COLOURS = {
    PAPER: pictures.VERMILION,
    EVOGRAD: pictures.ORANGE,
    GUIDED: pictures.GREEN,
    EXACT: pictures.BLUE,
    FIXED: pictures.INK,
}
_COLUMNS = 4


def draw_qualities(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw a panel for each problem, with a line for each way of learning.

    A line goes from the point at equal iterations to the point at equal time.

    Args:
        records: records of :func:`benchmarks.accuracy.measure`.
        path: path of the PNG.
    """
    problems = list(dict.fromkeys(record["problem"] for record in records))
    columns = min(_COLUMNS, len(problems))
    rows = -(-len(problems) // columns)
    figure = Figure(figsize=(3.7 * columns, 3.2 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, problem in zip(panels, problems, strict=False):
        own = [record for record in records if record["problem"] == problem]
        factor = 100 if own[0]["accuracy"] else 1
        for column in COLUMNS:
            points = [record for record in own if record["column"] == column]
            axes.errorbar(
                [point["training_seconds"] for point in points],
                [factor * point["mean"] for point in points],
                [factor * point["error"] for point in points],
                marker="o",
                markersize=4,
                capsize=3,
                color=_COLOURS.get(column, pictures.GREY),
                label=column,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_title(problem, fontsize=10)
        axes.set_xlabel("seconds of training")
        axes.set_ylabel(own[0]["quality"] + (", %" if own[0]["accuracy"] else ""))
        pictures.without_frame(axes, grid="both")
    for axes in panels[len(problems) :]:
        axes.axis("off")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    pictures.save(figure, path)
