"""``l2l-evograd illustrate`` from its options to its report."""

from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from l2l_evograd.illustrations import ESTIMATES, PICTURES, TRAJECTORIES
from l2l_evograd.illustrations import one_dimension as problem
from l2l_evograd.illustrations.one_dimension_report import (
    curves_table,
    draw_curves,
    draw_trajectories,
)
from l2l_evograd.runs.command import say
from l2l_evograd.runs.folder import (
    RESULTS,
    check_out,
    make_folder,
    versions,
    write_json,
)
from l2l_evograd.runs.settings import check_whole

# The spread at K = 2 would hide the rest.
_SHOWN = (-1.2, 0.6)


def illustrate(
    *,
    trials: int,
    seed: int,
    out: Path,
    overwrite: bool = False,
    console: Console | None = None,
) -> list[dict[str, Any]]:
    """Hold Algorithm 1 against the truth on the one-dimensional problem.

    Writes settings, results and two pictures to ``out``.

    Args:
        trials: for each of the 100 values of λ, at least 2.
        seed: of everything that is drawn.
        out: folder of the run.
        overwrite: replace the run in ``out``.
        console: where to say what happens; None: the standard output.

    Returns:
        One row for each K.

    Raises:
        ValueError, TypeError, PermissionError: for bad input, before anything is
            written.
    """
    console = console or Console()
    out = out.expanduser()
    check_whole("trials", trials, 2)
    check_whole("seed", seed, 0)
    check_out(out, PICTURES, overwrite=overwrite, resumable=False)
    settings = {"trials": trials, "seed": seed}
    make_folder(out, settings, PICTURES)
    generator = torch.Generator().manual_seed(seed)
    curves = {k: problem.curve(k, trials, generator) for k in problem.COUNTS}
    paths = {
        count: [problem.trajectory(begin, count, generator) for begin in problem.STARTS]
        for count in problem.COUNTS
    }
    truths = [problem.true_trajectory(begin) for begin in problem.STARTS]
    rows = [_row(count, curve) for count, curve in curves.items()]
    lam = problem.grid()
    write_json(
        out / RESULTS,
        {
            "settings": settings,
            "versions": versions(),
            "summary": rows,
            "lambda": lam.tolist(),
            "truth": problem.truth(lam).tolist(),
            "limit": problem.limit(lam).tolist(),
            "estimates": [
                {"candidates": k, "mean": c.mean.tolist(), "sd": c.sd.tolist()}
                for k, c in curves.items()
            ],
            "trajectories": [
                {"candidates": count, "paths": found} for count, found in paths.items()
            ],
            "true_trajectories": truths,
        },
    )
    draw_curves(curves, _SHOWN, out / ESTIMATES)
    draw_trajectories(paths, truths, out / TRAJECTORIES)
    console.print(curves_table(rows, trials))
    say(console, f"{out / RESULTS}, {ESTIMATES}, {TRAJECTORIES}")
    return rows


def _row(count: int, curve: problem.Curve) -> dict[str, Any]:
    lam = problem.grid()
    truth = problem.truth(lam)
    return {
        "candidates": count,
        "gap_to_truth": float((curve.mean - truth).abs().mean()),
        "gap_to_limit": float((curve.mean - problem.limit(lam)).abs().mean()),
        "mean_sd": float(curve.sd.mean()),
        "correlation": float(torch.corrcoef(torch.stack([curve.mean, truth]))[0, 1]),
    }
