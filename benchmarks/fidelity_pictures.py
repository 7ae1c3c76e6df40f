"""The picture of a fidelity benchmark: how far each method descends, over its cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import Bbox

from l2l_evograd.runs import pictures

Record = Mapping[str, Any]

_COLOURS = {
    "Algorithm 1": pictures.VERMILION,
    "naive Algorithm 1": pictures.VERMILION,
    "evograd": pictures.ORANGE,
    "guided": pictures.GREEN,
    "exact": pictures.BLUE,
    "second order": pictures.BLUE,
}
_DPI = 200
_TICKS = (1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 200, 500, 1000)
_LOWEST, _HIGHEST = -0.6, 3.5  # beyond which a point is drawn on the edge

# Where a label may stand, in points from its point, nearest first.
_OFFSETS = [
    (side * x, y)
    for y in (0, 8, -8, 16, -16, 24, -24, 34, -34, 46, -46, 60, -60, 76, -76, 94, -94)
    for x in (7, 22, 45)
    for side in (1, -1)
    if y or x == 7
]


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw a panel for each problem, a labelled point for each method.

    Across the seconds of an iteration by those of a plain training step, upward the
    realised descent at the first δ by the exact hypergradient's, with its standard
    error. Methods without such a ratio are left out.

    Args:
        records: as ``dataclasses.asdict`` returns them.
        path: of the PNG, written in one stroke.
    """
    records = [r for r in records if "error" not in r and _ratio(r) is not None]
    names = list(dict.fromkeys(record["problem"] for record in records))
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    size = (7.2 * columns, 4.6 * rows)
    # Letters are as wide as they will be only at the resolution of the file.
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, name in zip(panels, names, strict=False):
        own = [r for r in records if r["problem"] == name]
        _points(axes, own)
        axes.set_title(f"{name}, δ = {own[0]['descents'][0]['delta']:g}", fontsize=10)
    for axes in panels[len(names) :]:
        axes.axis("off")
    figure.supxlabel("seconds, by those of a plain step (float64)", fontsize=10)
    figure.supylabel("realised descent, by that of the exact one", fontsize=10)
    canvas.draw()  # fixes the places that labels must keep clear of
    figure.set_layout_engine("none")
    for axes, name in zip(panels, names, strict=False):
        _labels(axes, [r for r in records if r["problem"] == name])
    pictures.save(figure, path)


def _points(axes: Axes, records: Sequence[Record]) -> None:
    axes.set_xscale("log")
    # Before anything is drawn: limits found for a single point may be equal.
    costs = [record["relative_seconds"] for record in records]
    axes.set_xlim(min(costs) * 0.6, max(costs) * 1.9)
    for record in records:
        x, y = _place(record)
        found = _ratio(record)
        inside = y == found["value"]
        axes.errorbar(
            x,
            y,
            yerr=found["error"] if inside else None,
            marker="o" if inside else ("^" if y > 0 else "v"),
            markersize=5,
            capsize=2,
            linewidth=1,
            color=_colour(record["method"]),
        )
    axes.axhline(1, color=pictures.GREY, linewidth=0.8, zorder=0)
    axes.axhline(0, color=pictures.GREY, linewidth=0.8, linestyle=":", zorder=0)
    heights = []
    for record in records:
        y, found = _place(record)[1], _ratio(record)
        error = found["error"] if y == found["value"] else 0.0
        heights += [y - error, y + error]
    axes.set_ylim(min(-0.3, *heights) - 0.15, max(1.6, *heights) + 0.25)
    axes.xaxis.set_major_locator(FixedLocator(_TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    pictures.plain(axes, "both")


def _labels(axes: Axes, records: Sequence[Record]) -> None:
    """Write each name where it covers neither a point nor another name."""
    renderer = axes.figure.canvas.get_renderer()
    pixels = axes.figure.dpi / 72
    taken = []
    for record in records:
        x, y = axes.transData.transform(_place(record))
        error = _ratio(record)["error"]
        low, high = (
            axes.transData.transform((0.1, _place(record)[1] + e))[1]
            for e in (-error, error)
        )
        room = 3 * pixels
        taken.append(Bbox.from_bounds(x - room, y - room, 2 * room, 2 * room))
        taken.append(Bbox.from_extents(x - pixels, low, x + pixels, high))
    frame = axes.get_window_extent(renderer)
    for record in sorted(records, key=lambda r: r["relative_seconds"]):
        point = axes.transData.transform(_place(record))
        text = axes.text(0, 0, _name(record), fontsize=7.5, transform=None)
        own = text.get_window_extent(renderer)
        options = []
        for dx, dy in _OFFSETS:
            left = point[0] + dx * pixels - (own.width if dx < 0 else 0)
            bottom = point[1] + dy * pixels - own.height / 2
            box = Bbox.from_bounds(left, bottom, own.width, own.height)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1
            inside = inside and frame.y0 <= box.y0 and box.y1 <= frame.y1
            clashes = sum(box.overlaps(other) for other in taken) + 10 * (not inside)
            # Of equally good places the nearest, which comes first.
            options.append((clashes, len(options), box, (dx, dy)))
        text.remove()
        _, _, box, (dx, dy) = min(options)
        taken.append(box.padded(pixels))
        far = abs(dx) > 7 or dy != 0
        arrow = {"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.5}
        axes.annotate(
            _name(record),
            _place(record),
            (dx, dy),
            textcoords="offset points",
            fontsize=7.5,
            color=_colour(record["method"]),
            horizontalalignment="left" if dx > 0 else "right",
            verticalalignment="center",
            arrowprops=arrow if far else None,
        )


def _place(record: Record) -> tuple[float, float]:
    """Return where a record's point is, on the edge if it lies beyond."""
    value = _ratio(record)["value"]
    return record["relative_seconds"], min(max(value, _LOWEST), _HIGHEST)


def _name(record: Record) -> str:
    """Return the label, with the number where the point does not show it."""
    value, method = _ratio(record)["value"], str(record["method"])
    return method if _place(record)[1] == value else f"{method} ({value:.1f})"


def _ratio(record: Record) -> Any:
    return record["descents"][0]["ratio"]


def _colour(method: str) -> str:
    """Return the colour of a method's kind; other libraries share one."""
    return next(
        (colour for kind, colour in _COLOURS.items() if method.startswith(kind)),
        pictures.PURPLE,
    )
