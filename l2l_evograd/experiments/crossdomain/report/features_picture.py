"""The picture of the features of seen and unseen domains, for each method."""

from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from l2l_evograd.checks import InputError
from l2l_evograd.experiments import pictures
from l2l_evograd.experiments.crossdomain.report.pca import Plane

_SEEN_COLOURS = (
    pictures.SKY,
    pictures.BLUE,
    pictures.GREEN,
    pictures.ORANGE,
    pictures.PURPLE,
)
_SEEN_MARKERS = "osD"
_UNSEEN_COLOUR, _UNSEEN_MARKER = pictures.VERMILION, "x"
_MOST_COLUMNS = 3
# Largest number of points of a domain, spread evenly over its images. More points would
# hide each other.
_MOST_POINTS = 300


def draw_planes(planes: Mapping[str, Plane], unseen: str, path: Path) -> None:
    """Draw the features of all domains in one plane for each method.

    Args:
        planes: maps each method to a result of :func:`~.pca.principal_plane`.
        unseen: name of the unseen domain.
        path: path of the PNG, which is written whole or not at all.

    Raises:
        InputError: if there is no method.
    """
    if not planes:
        raise InputError("expected the features of at least one method, got none")
    columns = min(len(planes), _MOST_COLUMNS)
    rows = -(-len(planes) // columns)
    size = (2.7 * columns + 0.2, 2.7 * rows + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (method, plane) in zip(panels, planes.items(), strict=False):
        axes.set_title(method, fontsize=10)
        _scatter(axes, plane.places, unseen)
        axes.set_xlabel(f"component 1 ({plane.shares[0]:.0%})", fontsize=8)
        axes.set_ylabel(f"component 2 ({plane.shares[1]:.0%})", fontsize=8)
    for axes in panels[len(planes) :]:
        axes.axis("off")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=3,
        markerscale=1.5,
        frameon=False,
        fontsize=8,
    )
    pictures.save(figure, path)


def _scatter(axes: Axes, places: Mapping[str, Tensor], unseen: str) -> None:
    """Draw the points of every domain, with the unseen domain on top."""
    seen = [name for name in places if name != unseen]
    for number, name in enumerate(seen):
        turn, colour = divmod(number, len(_SEEN_COLOURS))
        x, y = _shown(places[name])
        axes.scatter(
            x,
            y,
            s=9,
            color=_SEEN_COLOURS[colour],
            marker=_SEEN_MARKERS[turn % len(_SEEN_MARKERS)],
            alpha=0.6,
            linewidths=0,
            label=f"{name} (seen)",
        )
    x, y = _shown(places[unseen])
    axes.scatter(
        x,
        y,
        s=14,
        color=_UNSEEN_COLOUR,
        marker=_UNSEEN_MARKER,
        linewidths=0.9,
        label=f"{unseen} (unseen)",
    )
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])


def _shown(places: Tensor) -> tuple[list[float], list[float]]:
    count = min(len(places), _MOST_POINTS)
    chosen = torch.linspace(0, len(places) - 1, count).round().long()
    x, y = places[chosen].T.tolist()
    return x, y
