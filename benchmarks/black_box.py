"""DEHB beside random search and TPE, at equal budgets, on two cheap noisy problems.

    python -m benchmarks.black_box --json FILE
    python -m benchmarks.black_box --quick

``ones``: the toy of DEHB's authors. 8 categories and 8 probabilities; the loss is minus
the mean of the categories and of the means of b draws, with b from 8 to 216 as the
fidelity. ``curves``: six learning rates and a loss that falls faster for larger ones,
from 22 to 200 steps, with noise.

The figure is the loss without noise, at the highest fidelity, of the configuration that
the search returns: lower is better. Mean and standard error over seeds; differences are
paired by seed.
"""

import argparse
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.table import Table

from benchmarks.measuring import wide_console, write_records
from l2l_evograd.experiments.results import standard_error
from l2l_evograd.search import METHODS, search

Loss = Callable[[Mapping[str, Any]], float]


@dataclass(frozen=True)
class Config:
    """Budgets in whole trainings, and the number of seeds."""

    budgets: tuple[int, ...] = (25, 100)
    seeds: int = 10
    threads: int = 1


QUICK = Config(budgets=(4,), seeds=2)


@dataclass(frozen=True)
class Problem:
    """A space, its fidelities, and the loss with noise and without.

    Attributes:
        name: its name.
        space: the space.
        low, high: the fidelities.
        train: the loss with noise, by configuration, fidelity and seed.
        truth: the loss without noise at the highest fidelity.
    """

    name: str
    space: dict[str, Any]
    low: int
    high: int
    train: Callable[[Mapping[str, Any], int, int], float]
    truth: Loss


@dataclass(frozen=True)
class Record:
    """True losses of what one method returned, one for each seed."""

    problem: str
    budget: int
    method: str
    losses: list[float]


def ones(config: Mapping[str, Any], draws: int = 0, seed: int = 0) -> float:
    """Return minus the mean of all entries; of probabilities, the mean of draws."""
    rng = random.Random(seed)
    values = []
    for name, value in config.items():
        if name.startswith("p") and draws:
            value = sum(rng.random() < value for _ in range(draws)) / draws
        values.append(value)
    return -fmean(values)


# The best rates of ``curves``, as powers of 10.
_BEST = (-1.0, -1.5, -0.5, -2.0, -1.0, -0.7)


def curves(config: Mapping[str, Any], steps: int, seed: int | None = None) -> float:
    """Return a loss after some steps, with noise of 0.1 if there is a seed."""
    rates = [math.log10(config[f"r{number}"]) for number in range(len(_BEST))]
    far = fmean((rate - best) ** 2 for rate, best in zip(rates, _BEST, strict=True))
    noise = 0.0 if seed is None else random.Random(seed).gauss(0, 0.1)
    speed = 10 ** fmean(rates)
    return 0.25 + 0.3 * min(far, 4.0) + math.exp(-speed * steps / 4) + noise


PROBLEMS = (
    Problem(
        "ones",
        {
            **{f"c{number}": [0, 1] for number in range(8)},
            **{f"p{number}": (0.0, 1.0) for number in range(8)},
        },
        *(8, 216, ones, ones),
    ),
    Problem(
        "curves",
        {f"r{number}": (1e-3, 1.0, "log") for number in range(len(_BEST))},
        *(22, 200, curves, partial(curves, steps=200)),
    ),
)


def measure(problem: Problem, method: str, budget: int, seeds: int) -> Record:
    """Return the true losses of what a method finds from several seeds.

    Args:
        problem: the problem.
        method: the method of search.
        budget: number of whole trainings.
        seeds: number of searches.
    """
    losses = []
    for seed in range(seeds):
        found = search(
            problem.train,
            problem.space,
            min_fidelity=problem.low,
            max_fidelity=problem.high,
            budget=budget * problem.high,
            method=method,
            seed=seed,
            fresh_seeds=1,
        )
        losses.append(problem.truth(found.best))
    return Record(problem.name, budget, method, losses)


def table(records: Sequence[Record]) -> Table:
    """Return means, and how far DEHB is from each method on the same seeds."""
    shown = Table("problem", "budget", "method", "true loss", "dehb minus it")
    dehb = {(r.problem, r.budget): r.losses for r in records if r.method == "dehb"}
    for record in records:
        own = dehb[record.problem, record.budget]
        apart = [a - b for a, b in zip(own, record.losses, strict=True)]
        shown.add_row(
            record.problem,
            str(record.budget),
            record.method,
            _figure(record.losses),
            "" if record.method == "dehb" else _figure(apart),
        )
    return shown


def _figure(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f} ± {standard_error(values):.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all methods on both problems, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.black_box", description="DEHB, random search and TPE"
    )
    parser.add_argument("--quick", action="store_true", help="only try that it runs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    config = QUICK if options.quick else Config()
    torch.set_num_threads(config.threads)
    records = [
        measure(problem, method, budget, config.seeds)
        for problem in PROBLEMS
        for budget in config.budgets
        for method in METHODS
    ]
    wide_console(80).print(table(records))
    if options.json:
        write_records(options.json, config, torch.device("cpu"), records)


if __name__ == "__main__":
    main()
