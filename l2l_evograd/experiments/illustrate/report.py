"""The table and the two pictures of the one-dimensional problem."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from l2l_evograd.experiments import pictures
from l2l_evograd.experiments.illustrate import problem

Trajectory = Sequence[tuple[float, float]]

_ESTIMATE, _TRUTH = pictures.BLUE, pictures.VERMILION
_STARTS = (
    pictures.VERMILION,
    pictures.BLUE,
    pictures.GREEN,
    pictures.PURPLE,
    pictures.ORANGE,
)


def curves_table(rows: Sequence[Mapping[str, Any]], trials: int) -> Table:
    """Return a table of the distances of the estimates to the truth, one row per K."""
    table = Table(title="Hypergradient estimates on the one-dimensional problem")
    table.caption = (
        f"Mean over the 100 values of λ. The estimates are means of {trials} trials. "
        f"At a temperature of 0.5, they tend to the limit for K = ∞, not to the truth."
    )
    for name in ("K", "|mean − truth|", "|mean − limit|", "sd", "corr. with truth"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["candidates"]),
            f"{row['gap_to_truth']:.4f}",
            f"{row['gap_to_limit']:.4f}",
            f"{row['mean_sd']:.4f}",
            f"{row['correlation']:.3f}",
        )
    return table


def draw_curves(
    curves: Mapping[int, problem.Curve], limits: Sequence[float], path: Path
) -> None:
    """Draw the mean and spread of the estimates over λ, in one panel for each K.

    Args:
        curves: maps K to its estimates.
        limits: limits of the vertical axis; curves beyond them are cut off.
        path: path of the PNG, which is written whole or not at all.
    """
    figure = Figure(figsize=(3.4 * len(curves), 3.2), layout="constrained")
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    lam = problem.grid()
    for axes, (count, curve) in zip(panels, curves.items(), strict=True):
        axes.fill_between(
            lam.numpy(),
            (curve.mean - curve.sd).numpy(),
            (curve.mean + curve.sd).numpy(),
            color=_ESTIMATE,
            alpha=0.2,
            linewidth=0,
            label="± one sd",
        )
        axes.plot(lam, curve.mean, color=_ESTIMATE, label="EvoGrad, mean")
        axes.plot(
            lam, problem.limit(lam), color=pictures.INK, linestyle=":", label="K = ∞"
        )
        axes.plot(lam, problem.truth(lam), color=_TRUTH, label="truth")
        axes.set_title(f"K = {count}", fontsize=10)
        axes.set_xlabel("λ")
        pictures.without_frame(axes)
    panels[0].set_ylim(*limits)
    panels[0].set_ylabel("hypergradient")
    panels[-1].legend(frameon=False, fontsize=8, loc="lower right")
    pictures.save(figure, path)


def draw_trajectories(
    paths: Mapping[int, Sequence[Trajectory]], truths: Sequence[Trajectory], path: Path
) -> None:
    """Draw the paths of (x, λ), in one panel for each K.

    Args:
        paths: maps K to one path for each start.
        truths: the paths along the true hypergradient.
        path: path of the PNG, which is written whole or not at all.
    """
    figure = Figure(figsize=(3.4 * len(paths), 3.4), layout="constrained")
    panels = figure.subplots(1, len(paths), sharey=True, squeeze=False)[0]
    for axes, (count, found) in zip(panels, paths.items(), strict=True):
        for number, (own, true) in enumerate(zip(found, truths, strict=True)):
            axes.plot(
                *zip(*true, strict=True),
                color=pictures.INK,
                linewidth=1,
                linestyle="--",
                label=None if number else "true hypergradient",
            )
            axes.plot(
                *zip(*own, strict=True),
                color=_STARTS[number % len(_STARTS)],
                marker="o",
                markersize=3,
                label=None if number else "EvoGrad, from each start",
            )
            axes.plot(*own[0], "s", color=_STARTS[number % len(_STARTS)], markersize=6)
        axes.set_title(f"K = {count}", fontsize=10)
        axes.set_xlabel("x")
        pictures.without_frame(axes)
    panels[0].set_ylabel("λ")
    panels[-1].legend(frameon=False, fontsize=8, loc="center left")
    pictures.save(figure, path)
