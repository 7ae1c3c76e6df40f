"""What the package adds to the work itself: gradients of small networks, many times.

    python -m benchmarks.overhead --json FILE --picture FILE
    python -m benchmarks.overhead --config smoke

A task's gradient with respect to the initial weights, beside learn2learn, ``higher``
and functional code; and a hypergradient with respect to sample weights, beside the
same estimate written by hand. Before anything is timed, all methods must give the same
gradient in double precision. A method that calls a network in training mode moves its
running statistics or spares them, whatever it does elsewhere.
"""

import argparse
import dataclasses
import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.measuring import timed, warmed_up, wide_console, write_records
from benchmarks.overhead_methods import (
    BY_HAND,
    LEARN2LEARN,
    Estimator,
    Method,
    gradient_methods,
    hypergradient_methods,
)
from benchmarks.overhead_pictures import draw_overhead
from benchmarks.overhead_records import Record, table
from benchmarks.overhead_tasks import Network, make_task
from l2l_evograd import EvoGrad, Guided

_WIDTH = 110
_CPU = torch.device("cpu")

# What rounding leaves in double precision; a difference divides it by its step h.
EXACT, DIFFERENCE = 1e-9, 1e-6

ESTIMATORS: dict[str, Estimator] = {
    "guided": Guided(h=0.01),
    "evograd, K = 2": EvoGrad(2),
    "evograd, K = 8": EvoGrad(8),
}


@dataclass(frozen=True)
class Config:
    """What is measured, in single precision.

    Attributes:
        networks: with their tasks.
        steps: of the inner loop of a meta-gradient.
        estimators: of a hypergradient, names in ``ESTIMATORS``.
        rounds: of all methods one after the other.
        seconds: that a method takes in a round at least, in as many calls as needed.
        threads: of PyTorch.
    """

    networks: tuple[Network, ...] = (
        Network("MLP 1-40-40-1", "mlp", 40, 10, lr=0.01),
        Network("OmniglotCNN", "omniglot", 64, 5, lr=0.1),
    )
    steps: tuple[int, ...] = (1, 5)
    estimators: tuple[str, ...] = tuple(ESTIMATORS)
    rounds: int = 7
    seconds: float = 0.3
    threads: int = 1


CONFIGS = {
    "default": Config(),
    "smoke": Config(
        (
            Network("MLP, narrow", "mlp", 4, 3, lr=0.01),
            Network("OmniglotCNN, narrow", "omniglot", 2, 3, lr=0.1),
        ),
        steps=(1, 2),
        rounds=2,
        seconds=0.0,
    ),
}


class Case(NamedTuple):
    """One problem.

    Attributes:
        name: of the problem.
        network: of the task.
        methods: ways to one and the same gradient.
        reference: the method that the others are compared with.
        tolerance: of their difference; None: they draw at random and are not compared.
    """

    name: str
    network: Network
    methods: Mapping[str, Method]
    reference: str
    tolerance: float | None


def cases(config: Config) -> list[Case]:
    """Return all problems, meta-gradients first."""
    found = []
    for network in config.networks:
        for steps in config.steps:
            for first_order in (True, False):
                plural, order = "s" * (steps > 1), "first" if first_order else "second"
                name = f"{network.name}, {steps} step{plural}, {order} order"
                methods = gradient_methods(steps, first_order)
                found.append(Case(name, network, methods, LEARN2LEARN, EXACT))
    for network in config.networks:
        for estimator_name in config.estimators:
            estimator = ESTIMATORS[estimator_name]
            name = f"{network.name}, sample weights, {estimator_name}"
            methods = hypergradient_methods(estimator)
            tolerance = DIFFERENCE if isinstance(estimator, Guided) else None
            found.append(Case(name, network, methods, BY_HAND, tolerance))
    return found


def measure(
    config: Config, after: Callable[[list[Record]], None] = lambda records: None
) -> list[Record]:
    """Return a record for each problem and method.

    Args:
        config: what is measured.
        after: called after every problem with the records so far.
    """
    torch.set_num_threads(config.threads)
    records: list[Record] = []
    # Else each round would look for garbage in all that has been imported.
    gc.freeze()
    try:
        for case in cases(config):
            records += _measure_one(config, case)
            after(records)
    finally:
        gc.unfreeze()
    return records


def _measure_one(config: Config, case: Case) -> list[Record]:
    differences, errors = compared(case)
    calls, late = warmed_up(
        {
            name: make(make_task(case.network, torch.float32))
            for name, make in case.methods.items()
            if name not in errors
        }
    )
    errors.update(late)
    if case.reference in errors:
        why = errors[case.reference]
        raise RuntimeError(f"{case.reference} fails in {case.name}: {why}")
    counts = {name: calls_in(call, config.seconds) for name, call in calls.items()}
    repeated = {name: partial(_repeat, calls[name], counts[name]) for name in calls}
    rounds = timed(repeated, config.rounds, _CPU)
    each = {name: [s / counts[name] for s in own] for name, own in rounds.items()}
    records = []
    for name in case.methods:
        record = Record(
            case.name,
            name,
            case.reference,
            difference=differences.get(name),
            error=errors.get(name),
        )
        if name in each:
            own = each[name]
            ratios = [a / b for a, b in zip(own, each[case.reference], strict=True)]
            record = dataclasses.replace(
                record,
                seconds=median(own),
                fastest=min(own),
                slowest=max(own),
                ratio=median(ratios),
                ratio_least=min(ratios),
                ratio_most=max(ratios),
                calls=counts[name],
            )
        records.append(record)
    return records


def compared(case: Case) -> tuple[dict[str, float], dict[str, str]]:
    """Call each method once in double precision.

    Returns:
        How far each is from the reference, where they can be compared; and why a
        method is not to be timed.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str, make: Method) -> None:
        gradients = make(make_task(case.network, torch.float64))()
        found[name] = torch.cat(
            [part.detach().flatten() for part in gradients if part is not None]
        )

    calls = {name: partial(keep, name, make) for name, make in case.methods.items()}
    errors = dict(warmed_up(calls).errors)
    if case.tolerance is None or case.reference not in found:
        return {}, errors
    expected = found[case.reference]
    scale = expected.abs().max()
    differences = {
        name: float((own - expected).abs().max() / scale) for name, own in found.items()
    }
    for name, difference in differences.items():
        if not difference <= case.tolerance:
            errors[name] = f"gives another gradient, {difference:.0e} away"
    return differences, errors


def calls_in(call: Callable[[], Any], seconds: float) -> int:
    """Return how many calls it takes to fill the time, at least one."""
    started, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - started < seconds:
        call()
        count += 1
    return count


def _repeat(call: Callable[[], Any], count: int) -> None:
    for _ in range(count):
        call()


def main(arguments: list[str] | None = None) -> None:
    """Measure, print tables, write the records and the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead", description="Overhead on small networks."
    )
    parser.add_argument("--config", choices=sorted(CONFIGS), default="default")
    parser.add_argument("--rounds", type=int, help="timed rounds of each method")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args(arguments)
    config = CONFIGS[options.config]
    if options.rounds:
        config = dataclasses.replace(config, rounds=options.rounds)
    console, printed = wide_console(_WIDTH), 0

    def keep(records: list[Record]) -> None:
        nonlocal printed
        new, printed = records[printed:], len(records)
        console.print(table(new))
        for record in new:
            if record.error is not None:
                console.print(f"{record.method}: {record.error}", markup=False)
        if options.json is not None:
            write_records(options.json, config, _CPU, records)

    records = measure(config, keep)
    if options.picture is not None:
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        draw_overhead(records, options.picture)


if __name__ == "__main__":
    main()
