"""The pictures of a finished noisy-label run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from l2l_evograd.experiments import pictures
from l2l_evograd.experiments.noisy_labels.results import mean_curve
from l2l_evograd.experiments.results import RunResults

# The colour and line style of each method in all pictures. The line styles differ,
# because some curves lie on top of each other.
METHOD_LINES: dict[str, tuple[str, Any]] = {
    "baseline": (pictures.GREY, "-"),
    "random": (pictures.INK, (0, (3, 1, 1, 1, 1, 1))),
    "frozen": (pictures.INK, (0, (1, 1.2))),
    "exact": (pictures.BLUE, "-"),
    "evograd-paper": (pictures.VERMILION, (0, (5, 1.5))),
    "evograd": (pictures.ORANGE, (0, (4, 1, 1, 1))),
    "evograd-8": (pictures.PURPLE, (0, (4, 1, 1, 1))),
    "evograd-32": (pictures.SKY, (0, (4, 1, 1, 1))),
    "guided": (pictures.GREEN, (0, (2.5, 1.5))),
}
_CLEAN, _CORRUPTED = pictures.SKY, pictures.VERMILION
_BINS = 40
# Share of the weights that a histogram's axis reaches.
_SHOWN = 0.98


def draw_weights(results: RunResults, path: Path) -> None:
    """Draw the weight of a sample as a function of its loss, averaged over the seeds.

    Args:
        results: results of the run.
        path: path of the PNG, which is written whole or not at all.
    """
    figure, axes = _axes()
    runs = _having("weights_after", results)
    start: list[float] = []
    for method in dict.fromkeys(run["method"] for run in runs):
        own = [run for run in runs if run["method"] == method]
        start = start or mean_curve([run["weights_before"] for run in own])
        if method != "frozen":
            curve = mean_curve([run["weights_after"] for run in own])
            axes.plot(own[0]["losses"], curve, label=method, **_style(method))
    if start:
        style = _style("frozen")
        axes.plot(runs[0]["losses"], start, label="initial (frozen)", **style)
    axes.set_xlabel("loss of the sample")
    axes.set_ylabel("weight V")
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 1)
    _finish(axes)
    pictures.save(figure, path)


def draw_accuracy(
    results: RunResults, per_epoch: float, title: str, path: Path
) -> None:
    """Draw the test accuracy over epochs, averaged over the seeds.

    Args:
        results: results of the run.
        per_epoch: number of iterations of an epoch.
        title: title above the picture.
        path: path of the PNG, which is written whole or not at all.
    """
    figure, axes = _axes()
    for method in results.settings.methods:
        curves = [run["curve"] for run in results.of(method)]
        if not curves:
            continue
        epochs = [point["iteration"] / per_epoch for point in curves[0]]
        mean = mean_curve([[point["accuracy"] for point in c] for c in curves])
        marker = "o" if len(epochs) == 1 else None
        axes.plot(epochs, mean, label=method, marker=marker, **_style(method))
    axes.set_xlabel("epochs")
    axes.set_ylabel("test accuracy")
    if axes.dataLim.xmax >= 5:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_title(title, fontsize=10)
    _finish(axes)
    pictures.save(figure, path)


def draw_samples(results: RunResults, path: Path) -> None:
    """Draw the weights of clean and of corrupted training samples.

    There is one panel for each method that weights samples. It shows all seeds.

    Args:
        results: results of the run.
        path: path of the PNG, which is written whole or not at all.
    """
    by_method: dict[str, list[Mapping[str, Any]]] = {}
    for run in _having("samples", results):
        by_method.setdefault(run["method"], []).append(run)
    columns = min(3, max(1, len(by_method)))
    rows = max(1, -(-len(by_method) // columns))
    size = (2.6 * columns + 0.6, 2.2 * rows + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (method, runs) in zip(panels, by_method.items(), strict=False):
        _histograms(axes, runs)
        axes.set_title(method, fontsize=10)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
    for axes in panels[len(by_method) :]:
        axes.axis("off")
    if by_method:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper center", ncols=2, frameon=False
        )
        figure.supxlabel("weight of a training sample, with its mean", fontsize=10)
    pictures.save(figure, path)


def _histograms(axes: Axes, runs: Sequence[Mapping[str, Any]]) -> None:
    """Draw clean and corrupted samples, each on its own scale, and mark their means."""
    kinds = ("clean", "corrupted")
    values = {k: [w for run in runs for w in run["samples"][k]] for k in kinds}
    everything = [w for kind in kinds for w in values[kind]]
    if not everything:
        return
    # A net's weights are at most 1. Weights of samples have a long tail.
    low, high = min(everything), float(np.quantile(everything, _SHOWN))
    room = max(0.02, 0.05 * (high - low))
    top = high if high > 1 else min(1.0, high + room)
    edges = np.linspace(max(0.0, low - room), top, _BINS + 1)
    for kind, colour in zip(kinds, (_CLEAN, _CORRUPTED), strict=True):
        if not values[kind]:
            continue
        axes.hist(
            np.clip(values[kind], None, top),  # the last bar holds the tail
            bins=edges.tolist(),
            density=True,
            color=colour,
            alpha=0.55,
            label=f"{kind} label",
        )
        mean = float(np.mean(values[kind]))
        axes.axvline(mean, color=colour, linewidth=1.6, linestyle="--")


def _having(name: str, results: RunResults) -> list[dict[str, Any]]:
    """Return the runs that have an entry, in the order of the methods."""
    methods = results.settings.methods
    runs = [run for method in methods for run in results.of(method)]
    return [run for run in runs if run[name] is not None]


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.2, 3.6), layout="constrained")
    return figure, figure.add_subplot()


def _style(method: str) -> dict[str, Any]:
    colour, line = METHOD_LINES.get(method, (pictures.GREY, "-"))
    return {"color": colour, "linestyle": line, "linewidth": 1.8}


def _finish(axes: Axes) -> None:
    pictures.without_frame(axes, "both")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5)
        )
