"""The picture of the strengths of feature-wise transformations during training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from l2l_evograd.experiments import pictures

FIXED = "ft"
_PARTS = (("gamma", "γ"), ("beta", "β"))
# A strength that changes by less than this over the whole picture looks flat.
_LEAST_SPAN = 0.02

# Maps an iteration and the name of a layer to "gamma" and "beta".
_History = dict[int, dict[str, dict[str, float]]]


def draw_strengths(runs: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Draw :func:`strengths_figure` into a file.

    Args:
        runs: as for :func:`strengths_figure`.
        path: path of the PNG, which is written whole or not at all.

    Returns:
        Whether there was anything to draw. If not, nothing is written.
    """
    figure = strengths_figure(runs)
    if figure is not None:
        pictures.save(figure, path)
    return figure is not None


def strengths_figure(runs: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Return the strength of every feature-wise transformation layer over training.

    Each column is a method that learns the transformation, and each line is a layer.
    Earlier layers have darker lines. Several seeds are averaged. If ``ft`` is among the
    methods, a dashed line shows its strength, which does not change.

    Args:
        runs: results of each seed and method, as in ``results.json``, with
            ``"strengths"``: a list of ``{"iteration": int, "layers": {name: {"gamma":
            float, "beta": float}}}``, empty for a method without layers.

    Returns:
        The figure; None if there is nothing to draw.
    """
    by_method: dict[str, list[Sequence[Mapping[str, Any]]]] = {}
    for run in runs:
        if run["strengths"]:
            by_method.setdefault(run["method"], []).append(run["strengths"])
    histories = {name: _mean_history(each) for name, each in by_method.items()}
    fixed = histories.pop(FIXED, None)
    if not histories:
        return None
    layers = list(dict.fromkeys(name for h in histories.values() for name in h[min(h)]))
    figure = Figure(figsize=(2.5 * len(histories) + 1.8, 4.2), layout="constrained")
    panels = figure.subplots(
        2, len(histories), sharex=True, sharey="row", squeeze=False
    )
    for column, (method, history) in enumerate(histories.items()):
        panels[0, column].set_title(method, fontsize=10)
        panels[1, column].set_xlabel("iteration")
        for row, (part, _) in enumerate(_PARTS):
            _strength_lines(panels[row, column], history, layers, part)
            if fixed is not None:
                panels[row, column].axhline(
                    fmean(layer[part] for layer in fixed[min(fixed)].values()),
                    color=pictures.INK,
                    linewidth=1.2,
                    linestyle="--",
                    label=f"{FIXED}, fixed",
                )
    for row, (_, letter) in enumerate(_PARTS):
        panels[row, 0].set_ylabel(f"strength of {letter}")
        _widen(panels[row, 0])
    handles, _ = panels[0, 0].get_legend_handles_labels()
    labels = [*_short(layers), *(f"{FIXED}, fixed" for _ in handles[len(layers) :])]
    figure.legend(
        handles,
        labels,
        title="layer",
        loc="outside right center",
        frameon=False,
        fontsize=7,
    )
    return figure


def _mean_history(each: Sequence[Sequence[Mapping[str, Any]]]) -> _History:
    """Return the mean over several seeds for each iteration."""
    values: dict[int, dict[str, dict[str, list[float]]]] = {}
    for history in each:
        for point in history:
            layers = values.setdefault(point["iteration"], {})
            for name, layer in point["layers"].items():
                parts = layers.setdefault(name, {part: [] for part, _ in _PARTS})
                for part, _ in _PARTS:
                    parts[part].append(layer[part])
    return {
        iteration: {
            name: {part: fmean(found) for part, found in parts.items()}
            for name, parts in layers.items()
        }
        for iteration, layers in sorted(values.items())
    }


def _strength_lines(
    axes: Axes, history: _History, layers: Sequence[str], part: str
) -> None:
    """Draw one line for each layer, and set the style of the panel."""
    colours = matplotlib.colormaps["viridis"]
    deepest = max(len(layers) - 1, 1)
    for depth, name in enumerate(layers):
        axes.plot(
            list(history),
            [point[name][part] for point in history.values()],
            color=colours(0.92 * depth / deepest),  # the last colours are too pale
            linewidth=1.4,
            marker="o" if len(history) == 1 else None,
            label=name,
        )
    pictures.without_frame(axes, "both")


def _widen(axes: Axes) -> None:
    """Widen the axis, so that a very small change does not fill the panel."""
    low, high = axes.get_ylim()
    room = (_LEAST_SPAN - (high - low)) / 2
    if room > 0:
        axes.set_ylim(low - room, high + room)


def _short(names: Sequence[str]) -> list[str]:
    """Return dotted names without the first and last parts that all of them share."""
    parts = [name.split(".") for name in names]
    while len(parts) > 1 and min(map(len, parts)) > 1:
        if len({name[0] for name in parts}) == 1:
            parts = [name[1:] for name in parts]
        elif len({name[-1] for name in parts}) == 1:
            parts = [name[:-1] for name in parts]
        else:
            break
    return [".".join(name) for name in parts]
