"""Picture of what was learned on MNIST: schedules, losses and images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from l2l_evograd.data.digits import SIDE
from l2l_evograd.experiments import pictures
from l2l_evograd.experiments.results import deviation

_COLOURS = (pictures.BLUE, pictures.GREEN, pictures.ORANGE, pictures.VERMILION)


def draw_reversible_mnist(content: Mapping[str, Any], path: Path) -> None:
    """Draw rates and momenta over the steps, losses, and the ten images.

    Args:
        content: what ``benchmarks.reversible_mnist`` writes as JSON. The schedule and
            the images are those of the first seed, the losses those of all seeds.
        path: path of the PNG.
    """
    figure = Figure(figsize=(9.0, 5.0), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(3.9, 1.1))
    above, below = parts
    rates, momenta, losses = above.subplots(1, 3)
    schedules = content["schedules"]
    first = schedules[0]
    for axes, name in ((rates, "rates"), (momenta, "momenta")):
        _draw_layers(axes, first["groups"], np.array(first[name]))
    rates.set_ylabel("learning rate", fontsize=8)
    rates.legend(fontsize=7, frameon=False)
    momenta.set_ylabel("momentum", fontsize=8)
    momenta.set_ylim(0, 1)
    for axes in (rates, momenta):
        axes.set_xlabel("step", fontsize=8)
    _draw_losses(losses, schedules)
    for axes in (rates, momenta, losses):
        axes.tick_params(labelsize=8)
        pictures.without_frame(axes)
    _draw_images(below, content["images"])
    pictures.save(figure, path)


def _draw_layers(axes: Axes, groups: Sequence[str], values: np.ndarray) -> None:
    matrices = [place for place, name in enumerate(groups) if name[0] == "w"]
    for layer, place in enumerate(matrices):
        axes.plot(
            values[:, place],
            ".-",
            color=_COLOURS[layer % len(_COLOURS)],
            markersize=3,
            linewidth=0.9,
            label=f"weights of layer {layer + 1}",
        )


def _draw_losses(axes: Axes, schedules: Sequence[Mapping[str, Any]]) -> None:
    for key, colour, label in (
        ("training_loss", pictures.BLUE, "training digits"),
        ("held_out_loss", pictures.VERMILION, "held-out digits"),
    ):
        for number, schedule in enumerate(schedules):
            values = [entry[key] for entry in schedule["curve"]]
            name = label if number == 0 else None
            axes.plot(values, color=colour, linewidth=0.9, label=name)
            fresh = [entry[key] for entry in schedule["fresh"]]
            axes.plot(
                [len(values)] * len(fresh), fresh, ".", color=colour, markersize=4
            )
    axes.set_xlabel("outer step; dots: fresh seeds", fontsize=8)
    axes.set_ylabel("loss after the run", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7, frameon=False)


def _draw_images(part: SubFigure, learned: Sequence[Mapping[str, Any]]) -> None:
    fresh = [entry for each in learned for entry in each["fresh"]]
    errors = [100 * entry["held_out_error"] for entry in fresh]
    part.suptitle(
        f"Ten learned training images: error on held-out digits {fmean(errors):.1f} ± "
        f"{deviation(errors):.1f} %",
        fontsize=9,
    )
    for axes, image in zip(part.subplots(1, 10), learned[0]["images"], strict=True):
        pixels = np.array(image).reshape(SIDE, SIDE)
        most = abs(pixels).max()
        axes.imshow(pixels, cmap="RdBu_r", vmin=-most, vmax=most)
        axes.set_axis_off()
