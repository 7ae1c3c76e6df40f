"""``greedy``, ``fds`` and ``reversible``: search along hypergradients."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from l2l_evograd.experiments.schedules.problem import Params, Problem
from l2l_evograd.experiments.schedules.settings import DENOMINATOR
from l2l_evograd.experiments.schedules.trials import Trials, unless_diverged
from l2l_evograd.seeds import derive_seed
from l2l_evograd.unroll import (
    RunGradients,
    SignDescent,
    forward_mode,
    greedy,
    reversible_sgd,
)

_reversible = partial(reversible_sgd, denominator=DENOMINATOR)

MODES: dict[str, Callable[..., RunGradients]] = {
    "greedy": greedy,
    "fds": forward_mode,
    "reversible": _reversible,
    "reversible-steps": _reversible,
}


def search_gradient(
    problem: Problem, method: str, seed: int, trials: Trials
) -> list[float] | None:
    """Return the schedule of the run with the lowest outer loss.

    Every run has new initial weights and batches. After it, the rates move along its
    hypergradient: by :class:`~l2l_evograd.unroll.SignDescent` from 0 to the largest
    rate, or for ``reversible-steps`` by Adam on their logarithms. If a run diverged,
    all rates are halved.

    Args:
        problem: the training run.
        method: a name in :data:`MODES`.
        seed: seed of the search.
        trials: the search's runs; empty.

    Returns:
        The learning rates; None if every run diverged.

    Source: Micaelli, Storkey, NeurIPS 2021, for sign descent; they start at 0, from
        where its first step leads to the first step's size.
    """
    settings = problem.settings
    rates = _Rates(problem, logarithms=method == "reversible-steps")
    cost = settings.gradients_per_run(method)
    number = 0
    while trials.allow(cost):
        own = derive_seed(seed, "search", number)
        run = problem.run(own)
        if method == "greedy":
            run["outer_loss"] = ValidationBatches(problem, own)
        values = rates.values
        found = unless_diverged(MODES[method], **run, lr=values)
        loss = None if found is None else float(found.outer_loss)
        trials.add(cost, values.tolist(), loss)
        if found is None or not bool(found.schedule["lr"].isfinite().all()):
            rates.halve()
        else:
            rates.step(found.schedule["lr"])
        number += 1
    return None if trials.best is None else trials.best.rates


class ValidationBatches:
    """The outer loss of ``greedy``: of one batch, and of all images after the run.

    With all validation images after every step, one step would cost many gradients.

    Args:
        problem: the training run.
        seed: seed of the run.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        images, steps = problem.splits.validation, problem.settings.steps
        batches = problem.batches(images, derive_seed(seed, "validation"), steps)
        self._losses = iter([*batches[:-1], problem.outer_loss])

    def __call__(self, params: Params, _: None) -> Tensor:
        """Return the loss after the next step."""
        return next(self._losses)(params, None)


class _Rates:
    """The learning rates, and the outer optimizer that moves them."""

    def __init__(self, problem: Problem, logarithms: bool) -> None:
        settings = problem.settings
        count = settings.steps if logarithms else settings.windows
        self._logarithms = logarithms
        self._most = settings.lr_most
        start = math.log(settings.lr) if logarithms else settings.lr
        self._learned = torch.full((count,), start, dtype=torch.float64)
        self._optimizer: torch.optim.Optimizer
        if logarithms:
            self._optimizer = torch.optim.Adam([self._learned], lr=settings.meta_lr)
        else:
            self._optimizer = SignDescent(
                [self._learned], lr=settings.meta_lr, upper=settings.lr_most
            )

    @property
    def values(self) -> Tensor:
        """The rates, a new tensor."""
        if self._logarithms:
            return self._learned.exp().clamp(max=self._most)
        return self._learned.clone()

    def step(self, hypergradient: Tensor) -> None:
        """Move the rates; the hypergradient is with respect to them."""
        factor = self.values if self._logarithms else 1.0
        self._learned.grad = hypergradient * factor
        self._optimizer.step()

    def halve(self) -> None:
        """Halve the rates."""
        if self._logarithms:
            self._learned -= math.log(2)
        else:
            self._learned /= 2
