"""Picture of an overhead benchmark: time as a multiple of a reference method's."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.overhead_methods import (
    BY_HAND,
    HIGHER,
    LEARN2LEARN,
    LEARNER,
    OF_DICT,
    OF_MODULE,
    OURS,
)
from benchmarks.overhead_records import OverheadRecord
from l2l_evograd.experiments import pictures

_COLOURS = {
    LEARN2LEARN: pictures.GREEN,
    HIGHER: pictures.VERMILION,
    BY_HAND: pictures.ORANGE,
    OURS: pictures.BLUE,
    LEARNER: pictures.BLUE,
    OF_DICT: pictures.SKY,
    OF_MODULE: pictures.PURPLE,
}
_ROW = 0.36  # height of a problem's row in inches


def draw_overhead(records: Sequence[OverheadRecord], path: Path) -> None:
    """Draw a plot of ratios for each reference, with a row for each problem.

    Whiskers reach from the smallest to the largest ratio of a round.

    Args:
        records: records of all problems.
        path: path of the PNG.
    """
    references = list(dict.fromkeys(record.reference for record in records))
    groups = [[r for r in records if r.reference == each] for each in references]
    heights = [_ROW * len({r.problem for r in group}) + 0.9 for group in groups]
    figure = Figure(figsize=(8.0, sum(heights)), layout="constrained")
    plots = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)
    for axes, reference, group in zip(plots[:, 0], references, groups, strict=True):
        _draw(axes, group)
        axes.set_xlabel(f"time relative to {reference}", fontsize=8)
    pictures.save(figure, path)


def _draw(axes: Axes, group: Sequence[OverheadRecord]) -> None:
    problems = list(dict.fromkeys(record.problem for record in group))
    methods = list(dict.fromkeys(record.method for record in group))
    for place, method in enumerate(methods):
        rows, ratios, below, above = [], [], [], []
        shift = 0.5 * ((place + 0.5) / len(methods) - 0.5)
        for record in group:
            ratio, least, most = record.ratio, record.ratio_least, record.ratio_most
            if record.method != method or ratio is None:
                continue
            if least is None or most is None:
                continue
            rows.append(problems.index(record.problem) + shift)
            ratios.append(ratio)
            below.append(ratio - least)
            above.append(most - ratio)
        axes.errorbar(
            ratios,
            rows,
            xerr=(below, above),
            fmt="o",
            color=_COLOURS[method],
            markersize=4,
            linewidth=1,
            label=method,
        )
    axes.set_yticks(range(len(problems)), problems)
    axes.set_ylim(len(problems) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.tick_params(labelsize=8, length=0)
    axes.axvline(1, color=pictures.INK, linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=len(methods),
        frameon=False,
        fontsize=8,
        handletextpad=0.2,
        columnspacing=1.2,
    )
