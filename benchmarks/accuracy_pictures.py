"""Picture of an accuracy benchmark: accuracy over training time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from l2l_evograd.experiments import pictures
from l2l_evograd.experiments.crossdomain.report.run_report import METHOD_COLOURS
from l2l_evograd.experiments.noisy_labels.pictures import METHOD_LINES

_COLOURS = {
    **METHOD_COLOURS,
    **{method: colour for method, (colour, _) in METHOD_LINES.items()},
}


def draw_accuracies(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw a panel for each problem, with a line for each method.

    A line goes from the point at equal iterations to the point at equal time.

    Args:
        records: records of :func:`benchmarks.accuracy.measure`.
        path: path of the PNG.
    """
    problems = list(dict.fromkeys(record["problem"] for record in records))
    figure = Figure(figsize=(6.4 * len(problems), 4.2), layout="constrained")
    panels = figure.subplots(1, len(problems), squeeze=False)[0]
    for axes, problem in zip(panels, problems, strict=True):
        own = [record for record in records if record["problem"] == problem]
        for method in dict.fromkeys(record["method"] for record in own):
            points = [record for record in own if record["method"] == method]
            axes.errorbar(
                [point["training_seconds"] for point in points],
                [100 * point["accuracy"] for point in points],
                [100 * point["accuracy_error"] for point in points],
                marker="o",
                capsize=3,
                color=_COLOURS.get(method, pictures.INK),
                label=method,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_title(f"{problem}: equal iterations, then equal time")
        axes.set_xlabel("seconds of training")
        axes.set_ylabel("test accuracy, %, ± standard error")
        pictures.without_frame(axes, grid="both")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    pictures.save(figure, path)
