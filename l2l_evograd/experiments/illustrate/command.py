"""``l2l-evograd illustrate``."""

from pathlib import Path
from typing import Annotated, Any

import torch
from rich.console import Console

from l2l_evograd.experiments.experiment import say
from l2l_evograd.experiments.files import disk_errors
from l2l_evograd.experiments.folder import (
    ESTIMATES,
    FORMAT,
    RESULTS,
    TRAJECTORIES,
    check_out,
    make_folder,
    versions,
)
from l2l_evograd.experiments.illustrate import problem
from l2l_evograd.experiments.options import GivenWhole, NotAnOption, OutFolder
from l2l_evograd.experiments.output import printing
from l2l_evograd.experiments.paths import folder_to_write
from l2l_evograd.experiments.sealed import write_sealed
from l2l_evograd.experiments.settings import MOST_SEED
from l2l_evograd.experiments.values import checked
from l2l_evograd.interrupts import telling
from l2l_evograd.lock import locked

# Limits of the vertical axis. Without them, the large spread at K = 2 would hide the
# other curves.
_SHOWN = (-1.2, 0.6)

_ADVICE = "free space, and start again with --overwrite"

# The largest number of trials.
_MOST_TRIALS = 2000


@printing("illustrate")
@telling(lambda: "interrupted; start again with the same options and --overwrite")
def illustrate(
    *,
    trials: GivenWhole = 100,
    seed: GivenWhole = 0,
    out: OutFolder = Path("runs/illustrate"),
    overwrite: bool = False,
    console: Annotated[Console | None, NotAnOption] = None,
) -> list[dict[str, Any]]:
    """Draw the paper's one-dimensional illustration: estimates and trajectories.

    The command compares the true hypergradient with Algorithm 1 for 2, 10 and 100
    candidates.

    Args:
        trials: Number of trials for each of 100 values of lambda, at least 2.
        seed: Seed of all random numbers.
        out: Folder for settings, results and two pictures.
        overwrite: Replace the run in --out.
        console: console to print on; None: the standard output.

    Returns:
        One row for each K.

    Raises:
        InputError: for bad input, before anything is written.
    """
    from l2l_evograd.experiments.illustrate.report import (
        curves_table,
        draw_curves,
        draw_trajectories,
    )

    console = console or Console()
    out = folder_to_write(out)
    checked("trials", int, {"least": 2, "most": _MOST_TRIALS}, trials)
    checked("seed", int, {"least": 0, "most": MOST_SEED}, seed)
    with disk_errors(out, _ADVICE), locked(out):
        check_out(out, overwrite=overwrite, resumable=False)
        settings = {"trials": trials, "seed": seed}
        make_folder(out, "illustrate", settings)
        generator = torch.Generator().manual_seed(seed)
        curves = {k: problem.curve(k, trials, generator) for k in problem.COUNTS}
        paths = {
            count: [
                problem.trajectory(begin, count, generator) for begin in problem.STARTS
            ]
            for count in problem.COUNTS
        }
        truths = [problem.true_trajectory(begin) for begin in problem.STARTS]
        rows = [_row(count, curve) for count, curve in curves.items()]
        lam = problem.grid()
        write_sealed(
            out / RESULTS,
            {
                "format": FORMAT,
                "command": "illustrate",
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
                    {"candidates": count, "paths": found}
                    for count, found in paths.items()
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
