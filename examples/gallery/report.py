"""The command line of the gallery's problems: their tables and pictures."""

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from examples.gallery.gallery import LEARNED, Problem, Run
from l2l_evograd.experiments import pictures
from l2l_evograd.experiments.results import deviation

Runs = Mapping[str, Sequence[Run]]

_COLOURS = {
    "evograd-paper": pictures.VERMILION,
    "evograd": pictures.ORANGE,
    "evograd-32": pictures.PURPLE,
    "guided": pictures.GREEN,
    "exact": pictures.BLUE,
    "known": pictures.INK,
}


def main(problem: Problem, given: Sequence[str] | None = None) -> Runs:
    """Train a problem in all ways, print the table and draw the picture.

    Args:
        problem: the problem.
        given: arguments of the command line; None: those of the process.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--iterations", type=int, default=problem.iterations)
    name = f"{problem.name.replace(' ', '_')}.png"
    parser.add_argument("--picture", type=Path, default=Path("runs/gallery") / name)
    options = parser.parse_args(given)
    if options.seeds < 1 or options.iterations < 1:
        parser.error("expected --seeds and --iterations of at least 1")
    if options.picture.suffix != ".png":
        parser.error(f"expected --picture to end with .png, got {options.picture}")
    console, runs = Console(width=120), dict[str, list[Run]]()
    with console.status(problem.name) as status:
        for method in dict.fromkeys([*problem.fixed, *problem.methods]):
            status.update(f"{problem.name}: {method}")
            runs[method] = [
                problem.train(method, seed, options.iterations)
                for seed in range(options.seeds)
            ]
    console.print(table(problem, runs))
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    draw(problem, runs, options.picture)
    console.print(f"Picture: {options.picture}")
    return runs


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error, 0 for a single value."""
    return fmean(values), deviation(values) / math.sqrt(len(values))


def distance(problem: Problem, run: Run) -> float:
    """Return the root mean square of the difference between λ and the known answer."""
    pairs = zip(run.hyperparameters, problem.known, strict=True)
    return math.sqrt(fmean([(found - best) ** 2 for found, best in pairs]))


def table(problem: Problem, runs: Runs) -> Table:
    """Return one row for each way of training, with means over the seeds."""
    seeds = len(runs["none"])
    found = Table(
        title=f"{problem.name}: {problem.quantity}, {problem.quality_name}",
        caption=f"Means over {seeds} seeds ± standard error." if seeds > 1 else None,
        padding=(0, 1, 0, 0),
    )
    found.add_column("method", no_wrap=True)
    # Of many λ every third is shown.
    every = 3 if len(problem.labels) > 5 else 1
    for label in problem.labels[::every]:
        found.add_column(label, justify="right", no_wrap=True)
    for head in ("distance", problem.quality_name.split(" on ")[0], "minus none", "ms"):
        found.add_column(head, justify="right", no_wrap=True)
    control = [run.quality for run in runs["none"]]
    for method, all_seeds in runs.items():
        values = zip(*(run.hyperparameters for run in all_seeds), strict=True)
        qualities = [run.quality for run in all_seeds]
        gains = [q - c for q, c in zip(qualities, control, strict=True)]
        learned = method in LEARNED
        distances = [distance(problem, run) for run in all_seeds] if learned else []
        found.add_row(
            method,
            *(f"{fmean(value):.2f}" for value in [*values][::every]),
            _text(distances, 2),
            _text(qualities, 4),
            "" if method == "none" else _text(gains, 4),
            f"{1000 * fmean([run.seconds_per_iteration for run in all_seeds]):.2f}",
        )
    return found


def _text(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    mean, error = mean_and_error(values)
    spread = f" ± {error:.{digits}f}" if len(values) > 1 else ""
    return f"{mean:.{digits}f}{spread}"


def draw(problem: Problem, runs: Runs, path: Path) -> None:
    """Draw λ over the iterations beside the known answer, then quality beside cost.

    Args:
        problem: the problem.
        runs: runs of each way of training, one for each seed.
        path: path of the PNG.
    """
    figure = Figure(figsize=(10.5, 5.6), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[1.15, 1])
    upper, lower = halves
    panels = upper.subplots(1, len(LEARNED), sharey=True)
    count = len(problem.labels)
    colours = [
        colormaps["viridis"](0.85 * g / (count - 1) if count > 1 else 0.3)
        for g in range(count)
    ]
    for axes, method in zip(panels, LEARNED, strict=True):
        mean = torch.tensor([run.curve for run in runs[method]]).mean(dim=0)
        for g, colour in enumerate(colours):
            best = problem.known[g]
            axes.axhline(best, color=colour, linewidth=1, linestyle=(0, (4, 3)))
            axes.plot(mean[:, g], color=colour, linewidth=1.6, label=problem.labels[g])
        axes.set_title(method, fontsize=10, color=_COLOURS[method])
        axes.set_xlabel("iteration")
        pictures.without_frame(axes)
    panels[0].set_ylabel(problem.quantity)
    handles, names = panels[0].get_legend_handles_labels()
    dashes = panels[0].plot([], [], color=pictures.INK, linestyle=(0, (4, 3)))
    upper.legend(
        [*dashes, *handles],
        ["known answer", *names],
        loc="outside lower center",
        ncols=count + 1,
        frameon=False,
        fontsize=8,
        columnspacing=1.2,
        handlelength=1.6,
    )
    quality, cost = lower.subplots(1, 2, sharey=True)
    methods = [*runs][::-1]
    for row, method in enumerate(methods):
        shade = _COLOURS.get(method, pictures.GREY)
        middle, error = mean_and_error([run.quality for run in runs[method]])
        quality.errorbar(middle, row, xerr=error, fmt="o", color=shade, capsize=3)
        quality.annotate(
            f"{middle:.4f}",
            (middle + error, row),
            (8, -3),
            textcoords="offset points",
            fontsize=8,
        )
        ms = 1000 * fmean([run.seconds_per_iteration for run in runs[method]])
        bars = cost.barh(row, ms, height=0.6, color=shade)
        cost.bar_label(bars, [f"{ms:.1f}"], padding=3, fontsize=8)
    known = fmean([run.quality for run in runs["known"]])
    quality.axvline(known, color=pictures.INK, linewidth=1, linestyle=(0, (4, 3)))
    quality.set_yticks(range(len(methods)), methods)
    quality.set_ylim(-0.6, len(methods) - 0.4)
    quality.margins(x=0.15)
    cost.margins(x=0.1)
    better = "higher" if problem.higher_is_better else "lower"
    quality.set_xlabel(f"{problem.quality_name} ({better} is better)")
    cost.set_xlabel("milliseconds per iteration")
    for axes in (quality, cost):
        pictures.without_frame(axes, "both")
        axes.tick_params(axis="y", length=0)
    pictures.save(figure, path)
