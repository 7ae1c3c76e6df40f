"""The colours and the style of all pictures, and how they are written."""

from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from l2l_evograd.experiments.files import write_whole

# Okabe and Ito's colours, which colour-blind readers can tell apart.
SKY = "#56b4e9"
BLUE = "#0072b2"
GREEN = "#009e73"
ORANGE = "#e69f00"
VERMILION = "#d55e00"
PURPLE = "#cc79a7"

# INK is for axes and notes, GREY for controls that serve only as a comparison.
INK = "#222222"
GREY = "#8a8a8a"


def without_frame(axes: Axes, grid: Literal["y", "both"] = "y") -> None:
    """Remove a picture's frame and draw a faint grid behind it.

    Args:
        axes: axes of the picture.
        grid: ``"y"``: horizontal lines; ``"both"``: vertical lines as well.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def save(figure: Figure, path: Path) -> None:
    """Write a picture as a PNG, cropped to what is drawn.

    Args:
        figure: the picture.
        path: path of the PNG.
    """
    write_whole(
        path,
        lambda place: figure.savefig(
            place, dpi=200, bbox_inches="tight", pad_inches=0.05
        ),
    )
