"""``constant`` and ``cosine``: one number, from a grid, with the whole budget."""

import math
from collections.abc import Callable
from statistics import fmean

import torch

from l2l_evograd.experiments.schedules.problem import Problem
from l2l_evograd.experiments.schedules.settings import SchedulesSettings
from l2l_evograd.experiments.schedules.trials import Trials, unless_diverged
from l2l_evograd.seeds import derive_seed, generator_for
from l2l_evograd.unroll import run_sgd

# Number of points of the grid, four for each factor of 10 in the usual range.
_POINTS = 13


def constant(rate: float, steps: int) -> list[float]:
    """Return the schedule of one rate, as a single window."""
    del steps
    return [rate]


def cosine(peak: float, steps: int) -> list[float]:
    """Return α_t = peak (1 + cos(π t / T)) / 2 for every step t, counted from 0."""
    return [peak * (1 + math.cos(math.pi * t / steps)) / 2 for t in range(steps)]


SHAPES: dict[str, Callable[[float, int], list[float]]] = {
    "constant": constant,
    "cosine": cosine,
}


def search_grid(
    problem: Problem, method: str, seed: int, trials: Trials
) -> list[float] | None:
    """Return the schedule with the lowest mean outer loss.

    The points of the grid are evenly spaced in the logarithm. Every pass over them has
    initial weights and batches of its own, the same for all points. What is left of the
    budget goes to the points that are best so far, one run each.

    Args:
        problem: the training run.
        method: ``"constant"`` or ``"cosine"``.
        seed: seed of the search.
        trials: the search's runs; empty.

    Returns:
        The learning rates; None if at every point a run diverged.
    """
    settings = problem.settings
    shape, steps = SHAPES[method], settings.steps
    runs = settings.budget // steps
    points = [shape(value, steps) for value in values(settings, min(_POINTS, runs))]
    losses: list[list[float]] = [[] for _ in points]
    for number in range(-(-runs // len(points))):
        left = runs - number * len(points)
        # In an order by chance, because every order has a curve of its own.
        generator = generator_for(seed, "order", number)
        order = torch.randperm(len(points), generator=generator).tolist()
        if left < len(points):
            order = sorted(order, key=lambda point: fmean(losses[point]))[:left]
        run = problem.run(derive_seed(seed, "search", number))
        for point in order:
            rates = points[point]
            lr = torch.tensor(rates, dtype=torch.float64)
            found = unless_diverged(run_sgd, **run, lr=lr)
            loss = None if found is None else float(found.outer_loss)
            trials.add(steps, rates, loss)
            losses[point].append(math.inf if loss is None else loss)
    means = [fmean(own) for own in losses]
    best = means.index(min(means))
    return points[best] if math.isfinite(means[best]) else None


def values(settings: SchedulesSettings, count: int) -> list[float]:
    """Return the points of the grid."""
    low, high = math.log(settings.lr_least), math.log(settings.lr_most)
    return [
        math.exp(low + (high - low) * (n / (count - 1) if count > 1 else 0.5))
        for n in range(count)
    ]
