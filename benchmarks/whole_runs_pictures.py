"""Picture of the cost of whole runs: seconds and memory over T and over N."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    NullFormatter,
    NullLocator,
    StrMethodFormatter,
)

from benchmarks.whole_runs_problems import (
    FORWARD,
    GREEDY,
    HIGHER,
    METHODS,
    RATES,
    REVERSIBLE,
    UNROLLED,
)
from benchmarks.whole_runs_records import RunRecord, crossing
from l2l_evograd.experiments import pictures

_STYLES = {
    UNROLLED: (pictures.VERMILION, "o-"),
    HIGHER: (pictures.ORANGE, "x--"),
    FORWARD: (pictures.BLUE, "s-"),
    REVERSIBLE: (pictures.GREEN, "D-"),
    GREEDY: (pictures.GREY, "^:"),
}
_LABELS = {GREEDY: "greedy (another number)"}


def draw_whole_runs(records: Sequence[RunRecord], path: Path) -> None:
    """Draw a column for each sweep: seconds above, peak memory below.

    Args:
        records: records of all runs.
        path: path of the PNG.
    """
    sweeps = list(dict.fromkeys((r.network, r.learned) for r in records))
    figure = Figure(figsize=(3.3 * len(sweeps), 5.6), layout="constrained")
    rows = figure.subplots(2, len(sweeps), squeeze=False, sharex="col", sharey="row")
    for column, (network, learned) in enumerate(sweeps):
        own = [r for r in records if (r.network, r.learned) == (network, learned)]
        above, below = rows[0, column], rows[1, column]
        for method in METHODS:
            _draw(above, own, method, seconds_of)
            _draw(below, own, method, mebibytes_of)
        if learned == RATES:
            over, fixed = "number of steps T", f"{own[0].count} {learned}"
        else:
            over, fixed = f"number N of {learned}", f"T = {own[0].steps}"
        for axes in (above, below):
            _finish(axes, own)
        above.set_title(f"{network}\n{fixed}", fontsize=9)
        below.set_xlabel(over, fontsize=8)
        _note_refusals(below, own)
    rows[0, 0].set_ylabel("seconds of processor time", fontsize=8)
    rows[1, 0].set_ylabel("peak memory, MiB", fontsize=8)
    handles, labels = rows[0, 0].get_legend_handles_labels()
    figure.legend(
        *(handles, labels),
        loc="outside upper center",
        ncols=len(labels),
        frameon=False,
        fontsize=8,
    )
    figure.supxlabel("\n".join(advice(records)), fontsize=8, color=pictures.INK)
    pictures.save(figure, path)


def seconds_of(records: Sequence[RunRecord], method: str) -> list[tuple[int, float]]:
    """Return T or N, whichever varies, and seconds of a method in one sweep."""
    return [
        (_place(r), r.seconds)
        for r in records
        if r.method == method and r.seconds is not None
    ]


def mebibytes_of(records: Sequence[RunRecord], method: str) -> list[tuple[int, float]]:
    """Return T or N and peak memory in MiB of a method in one sweep."""
    return [
        (_place(r), r.peak_bytes / 2**20)
        for r in records
        if r.method == method and r.peak_bytes
    ]


def advice(records: Sequence[RunRecord]) -> list[str]:
    """Return what the figures say about which method to take, in lines."""
    many = [record for record in records if record.learned != RATES]
    seconds, mebibytes = (
        crossing(of(many, FORWARD), of(many, REVERSIBLE))
        for of in (seconds_of, mebibytes_of)
    )
    return [
        f"If the whole run fits in memory: {UNROLLED}, for any number of λ. If not: "
        f"{FORWARD} for few λ, {REVERSIBLE} for many.",
        f"On the right {FORWARD} takes longer than {REVERSIBLE} {_from(seconds)}, and "
        f"more memory {_from(mebibytes)}.",
        f"{REVERSIBLE} needs momentum and losses that can be repeated; {FORWARD} needs "
        f"neither.",
    ]


def _from(count: float | None) -> str:
    return "nowhere" if count is None else f"from {count:.0f} λ on"


def _place(record: RunRecord) -> int:
    return record.steps if record.learned == RATES else record.count


def _draw(
    axes: Axes,
    records: Sequence[RunRecord],
    method: str,
    curve: Callable[[Sequence[RunRecord], str], list[tuple[int, float]]],
) -> None:
    points = curve(records, method)
    if not points:
        return
    colour, style = _STYLES[method]
    axes.loglog(
        *zip(*points, strict=True),
        style,
        color=colour,
        markersize=4,
        linewidth=1.2,
        label=_LABELS.get(method, method),
    )


def _finish(axes: Axes, records: Sequence[RunRecord]) -> None:
    places = sorted({_place(record) for record in records})
    if len(places) > 6:  # more labels would touch each other
        places = [place for place in places if math.log10(place).is_integer()]
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.12g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=8)
    pictures.without_frame(axes, "both")


def _note_refusals(axes: Axes, records: Sequence[RunRecord]) -> None:
    """Say at the curve's end from which N on a method refuses to run."""
    for method in METHODS:
        curve = mebibytes_of(records, method)
        refused = [r for r in records if r.method == method and r.seconds is None]
        if curve and refused:
            axes.annotate(
                f"refused for\nN = {refused[0].count:,} and more",
                curve[-1],
                xytext=(6, 0),
                textcoords="offset points",
                fontsize=7,
                va="top",
                color=_STYLES[method][0],
            )
