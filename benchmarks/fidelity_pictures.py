"""Picture of a fidelity benchmark: the decrease of L by each method, over its cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import Bbox

from l2l_evograd.experiments import pictures

# A record as ``dataclasses.asdict`` returns it, and as JSON stores it.
Fields = Mapping[str, Any]

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
_LOWEST, _HIGHEST = -0.6, 3.5  # points outside this range are drawn on its edge

# Possible distances of a label from its point, in points (1/72 inch), nearest first.
_OFFSETS = [
    (side * x, y)
    for y in (0, 8, -8, 16, -16, 24, -24, 34, -34, 46, -46, 60, -60, 76, -76, 94, -94)
    for x in (7, 22, 45)
    for side in (1, -1)
    if y or x == 7
]


def draw(records: Sequence[Fields], path: Path) -> None:
    """Draw a panel for each problem, with a labelled point for each method.

    The x axis shows the seconds of an iteration divided by those of a plain training
    step. The y axis shows the realised descent at the first δ divided by that of the
    exact hypergradient, with its standard error. Methods without that ratio are left
    out.

    Args:
        records: records as ``dataclasses.asdict`` returns them.
        path: path of the PNG.
    """
    records = [r for r in records if "error" not in r and _ratio(r) is not None]
    names = list(dict.fromkeys(record["problem"] for record in records))
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    size = (7.2 * columns, 4.6 * rows)
    # The labels are placed by their size in pixels, at the resolution of the file.
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, name in zip(panels, names, strict=False):
        own = [r for r in records if r["problem"] == name]
        _points(axes, own)
        axes.set_title(f"{name}, δ = {own[0]['descents'][0]['delta']:g}", fontsize=10)
    for axes in panels[len(names) :]:
        axes.axis("off")
    figure.supxlabel("seconds / seconds of a plain step (float64)", fontsize=10)
    figure.supylabel("realised descent / that of the exact one", fontsize=10)
    canvas.draw()  # computes the positions of everything that is drawn so far
    figure.set_layout_engine("none")
    for axes, name in zip(panels, names, strict=False):
        _labels(axes, [r for r in records if r["problem"] == name])
    pictures.save(figure, path)


def _points(axes: Axes, records: Sequence[Fields]) -> None:
    axes.set_xscale("log")
    # Set before drawing, because automatic limits of a single point may be equal.
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
    pictures.without_frame(axes, "both")


def _labels(axes: Axes, records: Sequence[Fields]) -> None:
    """Label each point where its name covers no other point or name, if possible."""
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
            # The index makes min() prefer the nearest of equally good places.
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


def _place(record: Fields) -> tuple[float, float]:
    """Return the position of a record's point, moved to the edge if it is outside."""
    value = _ratio(record)["value"]
    return record["relative_seconds"], min(max(value, _LOWEST), _HIGHEST)


def _name(record: Fields) -> str:
    """Return a point's label, with the value if the point was moved to the edge."""
    value, method = _ratio(record)["value"], str(record["method"])
    return method if _place(record)[1] == value else f"{method} ({value:.1f})"


def _ratio(record: Fields) -> Any:
    return record["descents"][0]["ratio"]


def _colour(method: str) -> str:
    """Return the colour of a method; all other libraries share one colour."""
    return next(
        (colour for kind, colour in _COLOURS.items() if method.startswith(kind)),
        pictures.PURPLE,
    )
