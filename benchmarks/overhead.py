"""Overhead of the package: time of the gradients of small networks.

    python -m benchmarks.overhead --json FILE --picture FILE
    python -m benchmarks.overhead --config smoke

Two gradients are timed. The gradient of a task with respect to the initial weights is
compared with learn2learn, ``higher`` and functional code. A hypergradient with respect
to sample weights is compared with the same estimate written by hand. A method is timed
only if it gives the same gradient as the reference in double precision. The networks
are in training mode. Whether running statistics of batch norms change depends on the
method.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.measuring import (
    imports_frozen,
    timed,
    warmed_up,
    wide_console,
    write_records,
)
from benchmarks.overhead_methods import (
    BY_HAND,
    LEARN2LEARN,
    Estimator,
    GradientMethod,
    gradient_methods,
    hypergradient_methods,
)
from benchmarks.overhead_pictures import draw_overhead
from benchmarks.overhead_records import OverheadRecord, table
from benchmarks.overhead_tasks import Network, make_task
from l2l_evograd import EvoGrad, Guided

_WIDTH = 110
_CPU = torch.device("cpu")

# Accepted rounding errors in double precision: of exact gradients, and of finite
# differences, which divide the rounding error by the step h.
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
        networks: networks with their tasks.
        steps: numbers of inner steps of a meta-gradient.
        estimators: estimators of a hypergradient, names in ``ESTIMATORS``.
        rounds: number of rounds; each of them times all methods one after the other.
        seconds: minimum seconds of a method in a round; the method is called until
            they have passed.
        threads: number of PyTorch's threads.
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
        name: name of the problem.
        network: the network and its task.
        methods: methods that compute the same gradient, by name.
        reference: name of the method that the others are compared with.
        tolerance: accepted difference of the gradients; None: the methods are random,
            and their gradients are not compared.
    """

    name: str
    network: Network
    methods: Mapping[str, GradientMethod]
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
    config: Config, after: Callable[[list[OverheadRecord]], None] = lambda records: None
) -> list[OverheadRecord]:
    """Return a record for each problem and method.

    Args:
        config: what is measured.
        after: function that is called after each problem with all records so far.
    """
    torch.set_num_threads(config.threads)
    records: list[OverheadRecord] = []
    with imports_frozen():
        for case in cases(config):
            records += measure_case(config, case)
            after(records)
    return records


def measure_case(config: Config, case: Case) -> list[OverheadRecord]:
    """Return a record for each method of one problem.

    Args:
        config: rounds and seconds of the measurement.
        case: the problem.

    Raises:
        RuntimeError: if the reference fails.
    """
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
        raise RuntimeError(
            f"expected the reference {case.reference!r} of {case.name} to run, but: "
            f"{errors[case.reference]}"
        )
    counts = {name: calls_in(call, config.seconds) for name, call in calls.items()}
    repeated = {name: partial(_repeat, calls[name], counts[name]) for name in calls}
    rounds = timed(repeated, config.rounds, _CPU)
    each = {name: [s / counts[name] for s in own] for name, own in rounds.items()}
    records = []
    for name in case.methods:
        record = OverheadRecord(
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
        The difference of each method's gradient from the reference's, if they can be
        compared; and the errors of methods that must not be timed, in one line each.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str, make: GradientMethod) -> None:
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
            errors[name] = f"gives another gradient, relative error {difference:.0e}"
    return differences, errors


def calls_in(call: Callable[[], Any], seconds: float) -> int:
    """Return the number of calls that fill the time, at least one."""
    started, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - started < seconds:
        call()
        count += 1
    return count


def _repeat(call: Callable[[], Any], count: int) -> None:
    for _ in range(count):
        call()


def print_records(console: Console, records: Sequence[OverheadRecord]) -> None:
    """Print the table and the errors of one problem."""
    console.print(table(records))
    for record in records:
        if record.error is not None:
            console.print(f"{record.method}: {record.error}", markup=False)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print tables, write the records and the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead", description="Overhead on small networks."
    )
    parser.add_argument("--config", choices=sorted(CONFIGS), default="default")
    parser.add_argument("--rounds", type=int, help="number of timed rounds")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args(arguments)
    config = CONFIGS[options.config]
    if options.rounds:
        config = dataclasses.replace(config, rounds=options.rounds)
    console, printed = wide_console(_WIDTH), 0

    def print_and_save(records: list[OverheadRecord]) -> None:
        nonlocal printed
        new, printed = records[printed:], len(records)
        print_records(console, new)
        if options.json is not None:
            write_records(options.json, config, _CPU, records)

    records = measure(config, print_and_save)
    if options.picture is not None:
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        draw_overhead(records, options.picture)


if __name__ == "__main__":
    main()
