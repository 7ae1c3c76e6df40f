"""Picture of a cost benchmark: seconds and peak memory of each method."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks.cost_records import CostRecord
from benchmarks.methods import PLAIN_STEP
from l2l_evograd.experiments import pictures

_TRAINING_STEP, _OURS = "plain step", "l2l_evograd"
_COLOURS = {
    _TRAINING_STEP: pictures.GREY,
    _OURS: pictures.BLUE,
    "Algorithm 1, written out": pictures.ORANGE,
    "higher": pictures.VERMILION,
    "learn2learn": pictures.GREEN,
    "TorchOpt": pictures.PURPLE,
    "Betty": pictures.SKY,
}
_BAR = 0.21  # height of a method's bar in inches


def draw_costs(records: Sequence[CostRecord], path: Path) -> None:
    """Draw a row for each problem: seconds on the left, peak memory on the right.

    Whiskers reach from the fastest to the slowest round.

    Args:
        records: records of one or more problems.
        path: path of the PNG.
    """
    problems = list(dict.fromkeys(record.problem for record in records))
    groups = [[r for r in records if r.problem == problem] for problem in problems]
    heights = [_BAR * len(group) + 0.75 for group in groups]
    figure = Figure(figsize=(9.0, sum(heights) + 0.5), layout="constrained")
    rows = figure.subplots(
        len(groups), 2, squeeze=False, sharey="row", height_ratios=heights
    )
    for (left, right), problem, group in zip(rows, problems, groups, strict=True):
        _draw_seconds(left, group)
        _draw_memory(right, group)
        left.set_title(problem, fontsize=10, loc="left", fontweight="bold")
    present = {_maker(record.method) for record in records}
    handles = [
        Patch(color=colour, label=maker)
        for maker, colour in _COLOURS.items()
        if maker in present
    ]
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        handlelength=1.0,
        columnspacing=1.2,
    )
    pictures.save(figure, path)


def _draw_seconds(axes: Axes, group: Sequence[CostRecord]) -> None:
    longest = 0.0
    for place, record in enumerate(group):
        seconds, fastest, slowest = record.seconds, record.fastest, record.slowest
        if seconds is None or fastest is None or slowest is None:
            axes.annotate(
                "fails",
                (0, place),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=7,
                va="center",
                style="italic",
                color=pictures.GREY,
            )
            continue
        longest = max(longest, slowest)
        axes.barh(place, seconds, height=0.7, color=_COLOURS[_maker(record.method)])
        axes.plot([fastest, slowest], [place, place], color=pictures.INK, linewidth=0.8)
        label = f"{seconds:.3g} s"
        if record.times_plain is not None and record.method != PLAIN_STEP:
            label += f"  ({record.times_plain:.3g}×)"
        _write(axes, max(seconds, slowest), place, label)
    _finish(axes, group, longest, 1.4)
    axes.set_xlabel("seconds (multiples of a plain step)", fontsize=8)


def _draw_memory(axes: Axes, group: Sequence[CostRecord]) -> None:
    most = 0.0
    for place, record in enumerate(group):
        if record.peak_bytes is None:
            continue
        mebibytes = record.peak_bytes / 2**20
        most = max(most, mebibytes)
        axes.barh(place, mebibytes, height=0.7, color=_COLOURS[_maker(record.method)])
        label = f"{mebibytes:,.0f}" if mebibytes >= 10 else f"{mebibytes:.1f}"
        _write(axes, mebibytes, place, label)
    _finish(axes, group, most, 1.15)
    axes.tick_params(labelleft=False)
    axes.set_xlabel("peak memory, MiB", fontsize=8)


def _write(axes: Axes, x: float, y: float, text: str) -> None:
    axes.annotate(
        text,
        (x, y),
        xytext=(4, 0),
        textcoords="offset points",
        fontsize=7,
        va="center",
        color=pictures.INK,
    )


def _finish(
    axes: Axes, group: Sequence[CostRecord], largest: float, room: float
) -> None:
    """Label the bars, with the first method at the top, and set the limits.

    Args:
        axes: axes of the bars.
        group: records of the bars.
        largest: length of the longest bar.
        room: length of the axis, as a multiple of ``largest``.
    """
    axes.set_yticks(range(len(group)), [record.method for record in group])
    axes.set_ylim(len(group) - 0.4, -0.6)
    axes.set_xlim(0, room * largest or 1.0)
    axes.tick_params(labelsize=8, length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _maker(method: str) -> str:
    """Return the key of ``_COLOURS`` that a method belongs to."""
    if method == PLAIN_STEP:
        return _TRAINING_STEP
    if method == "naive Algorithm 1":
        return "Algorithm 1, written out"
    for maker in ("higher", "learn2learn", "TorchOpt", "Betty"):
        if maker in method:
            return maker
    return _OURS
