"""``dehb`` and ``random``: search that needs the outer loss only."""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.schedules.methods import ETA, shortest_run
from l2l_evograd.experiments.schedules.problem import Problem
from l2l_evograd.experiments.schedules.trials import Trials, unless_diverged
from l2l_evograd.search import Evaluation, search
from l2l_evograd.seeds import derive_seed
from l2l_evograd.unroll import run_sgd

# The libraries that each method needs, by their names in Python.
_LIBRARIES = {"dehb": ("dehb", "ConfigSpace"), "random": ("ConfigSpace",)}


def check_installed(methods: Sequence[str]) -> None:
    """Refuse the methods of the search library if it is not installed.

    Raises:
        InputError: names the extra to install.
    """
    chosen = [method for method in methods if method in _LIBRARIES]
    needed = dict.fromkeys(name for method in chosen for name in _LIBRARIES[method])
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"{' and '.join(chosen)} cannot run without {' and '.join(missing)}: pip "
            f"install 'l2l-evograd[search]', or leave {', '.join(chosen)} out of "
            f"--methods"
        )


def search_black_box(
    problem: Problem, method: str, seed: int, trials: Trials
) -> list[float] | None:
    """Return the best schedule that :func:`l2l_evograd.search.search` finds.

    One rate for each window, on a logarithmic scale. The fidelity is the number of
    steps: a short run goes through all windows, which are shorter.

    Args:
        problem: the training run.
        method: ``"dehb"`` or ``"random"``.
        seed: seed of the search.
        trials: the search's runs; empty.

    Returns:
        The learning rates; None if every whole run diverged.
    """
    settings = problem.settings
    steps, windows = settings.steps, settings.windows
    names = [f"lr{number}" for number in range(windows)]

    def rates_of(config: Mapping[str, Any]) -> list[float]:
        return [float(config[name]) for name in names]

    def train(config: Mapping[str, Any], fidelity: int, number: int) -> float:
        run = problem.run(derive_seed(seed, "search", number), fidelity)
        lr = torch.tensor(rates_of(config), dtype=torch.float64)
        found = unless_diverged(run_sgd, **run, lr=lr)
        return math.inf if found is None else float(found.outer_loss)

    def after(evaluation: Evaluation, spent: int) -> None:
        del spent
        trials.add(
            evaluation.fidelity,
            rates_of(evaluation.config),
            evaluation.loss,
            whole=evaluation.fidelity == steps,
        )

    result = search(
        train,
        {name: (settings.lr_least, settings.lr_most, "log") for name in names},
        min_fidelity=shortest_run(steps, windows) if method == "dehb" else steps,
        max_fidelity=steps,
        budget=settings.budget,
        eta=ETA,
        method=method,
        # Each method has runs of its own.
        seed=derive_seed(seed, method) % 2**31,
        fresh_seeds=1,  # the experiment tests all methods on fresh seeds of its own
        progress=after,
    )
    return rates_of(result.best) if math.isfinite(result.searched_loss) else None
