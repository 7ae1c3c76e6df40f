"""One search from one seed, and new training runs with the schedule that it found."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from l2l_evograd.experiments.schedules.blackbox import search_black_box
from l2l_evograd.experiments.schedules.gradient import search_gradient
from l2l_evograd.experiments.schedules.grid import search_grid
from l2l_evograd.experiments.schedules.methods import METHODS
from l2l_evograd.experiments.schedules.problem import Problem
from l2l_evograd.experiments.schedules.trials import Trials, unless_diverged
from l2l_evograd.seeds import derive_seed
from l2l_evograd.unroll import run_sgd

Searching = Callable[[Problem, str, int, Trials], list[float] | None]

_FAMILIES: dict[str, Searching] = {
    "grid": search_grid,
    "gradient": search_gradient,
    "black box": search_black_box,
}


def find_schedule(
    problem: Problem,
    method: str,
    seed: int,
    after: Callable[[int, float | None], None] | None = None,
) -> dict[str, Any]:
    """Search a schedule with one method, and test it in new training runs.

    Args:
        problem: the training run.
        method: name of the method.
        seed: seed of the search and, apart from that, of the new runs.
        after: as for :class:`~.trials.Trials`.

    Returns:
        ``schedule``: the learning rates, one for each window or for each step, None if
        every run diverged; ``runs``, ``gradients`` and ``seconds`` of the search;
        ``searched_loss``: the lowest outer loss that the search saw; ``curve`` of
        (gradients, lowest outer loss so far); ``fresh``: see :func:`retrained`.

    Cost: the budget, and a run for each fresh seed.
    """
    trials = Trials(problem.settings.budget, after)
    start = time.perf_counter()
    schedule = _FAMILIES[METHODS[method].family](problem, method, seed, trials)
    seconds = time.perf_counter() - start
    best = trials.best
    return {
        "seed": seed,
        "method": method,
        "schedule": schedule,
        "runs": len(trials.all),
        "gradients": trials.spent,
        "seconds": seconds,
        "searched_loss": None if best is None else best.loss,
        "curve": trials.curve(),
        "fresh": retrained(problem, schedule, seed),
    }


def retrained(
    problem: Problem, schedule: Sequence[float] | None, seed: int
) -> list[dict[str, float] | None]:
    """Return losses and accuracies of new runs with a schedule.

    Their initial weights and batches are those of no run of any search.

    Args:
        problem: the training run.
        schedule: the learning rates; None: no run.
        seed: seed of the search; the seeds of the runs are derived from it.

    Returns:
        For each fresh seed ``validation_loss``, ``validation_accuracy``, ``test_loss``
        and ``test_accuracy``, or None if the run diverged.
    """
    found: list[dict[str, float] | None] = []
    for number in range(problem.settings.fresh_seeds):
        trained = None
        if schedule is not None:
            run = problem.run(derive_seed(seed, "fresh", number))
            lr = torch.tensor(schedule, dtype=torch.float64)
            trained = unless_diverged(run_sgd, **run, lr=lr)
        found.append(None if trained is None else _figures(problem, trained.params))
    return found


def _figures(problem: Problem, params: dict[str, torch.Tensor]) -> dict[str, float]:
    splits = problem.splits
    validation = problem.figures(params, splits.validation)
    test = problem.figures(params, splits.test)
    return {
        "validation_loss": validation.loss,
        "validation_accuracy": validation.accuracy,
        "test_loss": test.loss,
        "test_accuracy": test.accuracy,
    }
