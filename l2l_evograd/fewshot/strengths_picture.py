"""The picture of how strong feature-wise transformations become in training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from l2l_evograd.runs import pictures

FIXED = "ft"
_PARTS = (("gamma", "γ"), ("beta", "β"))
# A strength that moves by less than this over the whole picture looks flat.
_LEAST_SPAN = 0.02

# Iteration -> layer -> "gamma" and "beta".
_History = dict[int, dict[str, dict[str, float]]]


def draw_strengths(runs: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Draw the strength of every feature-wise transformation layer over training.

    A column is a method that learns them, a line a layer, the darker the earlier it
    comes; several seeds are averaged. Where ``ft`` is among the methods, its strength,
    which stays as it is, is a dashed line.

    Args:
        runs: figures of each seed and method, as in ``results.json``, with
            ``"strengths"``: a list of ``{"iteration": int, "layers": {name: {"gamma":
            float, "beta": float}}}``, empty for a method without layers.
        path: of the PNG, written in one stroke.

    Returns:
        Whether there was anything to draw; else nothing is written.
    """
    by_method: dict[str, list[Sequence[Mapping[str, Any]]]] = {}
    for run in runs:
        if run["strengths"]:
            by_method.setdefault(run["method"], []).append(run["strengths"])
    histories = {name: _mean_history(each) for name, each in by_method.items()}
    fixed = histories.pop(FIXED, None)
    if not histories:
        return False
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
    pictures.save(figure, path)
    return True


def _mean_history(each: Sequence[Sequence[Mapping[str, Any]]]) -> _History:
    """Return the mean over several seeds, iteration by iteration."""
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
    """Draw one line for each layer, and settle how the panel looks."""
    colours = matplotlib.colormaps["viridis"]
    deepest = max(len(layers) - 1, 1)
    for depth, name in enumerate(layers):
        axes.plot(
            list(history),
            [point[name][part] for point in history.values()],
            color=colours(0.92 * depth / deepest),  # its end is too pale for lines
            linewidth=1.4,
            marker="o" if len(history) == 1 else None,
            label=name,
        )
    pictures.plain(axes, "both")


def _widen(axes: Axes) -> None:
    """Keep a movement that is next to nothing from filling the panel."""
    low, high = axes.get_ylim()
    room = (_LEAST_SPAN - (high - low)) / 2
    if room > 0:
        axes.set_ylim(low - room, high + room)


def _short(names: Sequence[str]) -> list[str]:
    """Return dotted names without the parts that all begin and all end with."""
    parts = [name.split(".") for name in names]
    while len(parts) > 1 and min(map(len, parts)) > 1:
        if len({name[0] for name in parts}) == 1:
            parts = [name[1:] for name in parts]
        elif len({name[-1] for name in parts}) == 1:
            parts = [name[:-1] for name in parts]
        else:
            break
    return [".".join(name) for name in parts]
