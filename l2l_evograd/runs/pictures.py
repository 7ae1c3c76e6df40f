"""How all pictures look, and how they are written."""

from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from l2l_evograd.runs.folder import write_whole

# Okabe and Ito's colours, which people with colour blindness can tell apart.
SKY = "#56b4e9"
BLUE = "#0072b2"
GREEN = "#009e73"
ORANGE = "#e69f00"
VERMILION = "#d55e00"
PURPLE = "#cc79a7"

# For what is no method's own, and for a method that is only there to compare with.
INK = "#222222"
GREY = "#8a8a8a"


def plain(axes: Axes, grid: Literal["y", "both"] = "y") -> None:
    """Take a picture's frame away and put a faint grid behind it.

    Args:
        axes: of the picture.
        grid: ``"y"``: lines across; ``"both"``: up and down as well.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def save(figure: Figure, path: Path) -> None:
    """Write a picture in one stroke, cut to what is drawn.

    Args:
        figure: the picture.
        path: of the PNG.
    """
    write_whole(
        path,
        lambda place: figure.savefig(
            place, dpi=200, bbox_inches="tight", pad_inches=0.05
        ),
    )
