"""Seconds and peak memory of a meta-step, by this package and by other libraries.

    python -m benchmarks.cost --json FILE --picture FILE
    python -m benchmarks.cost --config smoke
    python -m benchmarks.cost --problem maml

There are four kinds of problems: Meta-Weight-Net, learned feature-wise transformation
(LFT), MAML on one task, and MAML on a batch of small tasks. Seconds are also given as
multiples of one plain training step of the same network, and gradients are compared
with those of an exact method. Each method gets the network in the memory layout in
which it is faster.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cost_configs import (
    ALL_METHODS,
    CONFIGS,
    LAYOUTS,
    Config,
    ProblemConfig,
    family_of,
    method_on_new_problem,
)
from benchmarks.cost_pictures import draw_costs
from benchmarks.cost_records import CostRecord, line_of, print_records, record_of
from benchmarks.measuring import (
    give_back_memory,
    imports_frozen,
    in_fresh_process,
    operations_of,
    peak_of,
    timed,
    warmed_up,
    write_records,
)
from benchmarks.methods import PLAIN_STEP
from l2l_evograd.oracle.fidelity import flat

_PASSES = 3  # one forward pass, and a backward pass that costs two forward passes


def measure(
    config: Config, after: Callable[[list[CostRecord]], None] = lambda records: None
) -> list[CostRecord]:
    """Return a record for each problem and method.

    Args:
        config: what is measured.
        after: function that is called after each record with all records so far.

    Raises:
        RuntimeError: if the plain step of a problem fails or is left out.
    """
    torch.set_num_threads(config.threads)
    records: list[CostRecord] = []
    with nullcontext() if config.fresh else imports_frozen():
        for name, problem in config.problems:
            for record in _measure_one(config, name, problem):
                records.append(record)
                after(records)
    return records


def _measure_one(
    config: Config, name: str, problem: ProblemConfig
) -> Iterator[CostRecord]:
    device = torch.device(config.device)
    family = family_of(problem)
    chosen = [m for m in family.methods if not config.methods or m in config.methods]
    found: dict[str, Tensor] = {}
    calls, errors = warmed_up(
        {m: method_on_new_problem(problem, m, device, config.layout) for m in chosen},
        lambda method, gradients: (
            found.update({method: flat(gradients)}) if gradients else None
        ),
    )
    if PLAIN_STEP not in calls:
        reason = errors.get(PLAIN_STEP, "it is not among the methods")
        raise RuntimeError(
            f"expected the plain step of {name}, which costs are compared with, to "
            f"run, but: {reason}"
        )
    seconds = timed(calls, config.rounds, device)
    del calls
    give_back_memory(device)  # before the processes that measure memory need it
    exact = found.get(family.reference)
    step = None
    for method in chosen:
        if method in errors:
            yield CostRecord(name, method, error=errors[method])
            continue
        work, error = _work(config, problem, method)
        peak = work[0] if work else None
        operations = work[1] if len(work) > 1 else None
        if method == PLAIN_STEP:
            step = operations
        yield record_of(
            name,
            method,
            seconds[method],
            seconds[PLAIN_STEP],
            peak,
            error,
            _PASSES * operations / step if operations is not None and step else None,
            None if method == PLAIN_STEP else difference_of(found.get(method), exact),
        )


def difference_of(found: Tensor | None, exact: Tensor | None) -> float | None:
    """Return ‖ĝ − g‖/‖g‖, or None if one of them is missing."""
    if found is None or exact is None:
        return None
    return float((found - exact).norm() / exact.norm())


def _work(
    config: Config, problem: ProblemConfig, method: str
) -> tuple[list[int], str | None]:
    arguments = (problem, method, config.device, config.threads, config.layout)
    if config.fresh:
        return in_fresh_process(work_here, *arguments)
    return [*work_here(*arguments, calls=1)], None


def work_here(
    problem: ProblemConfig,
    method: str,
    device: str,
    threads: int,
    layout: str | None = None,
    calls: int = 2,
) -> Iterator[int]:
    """Yield the peak memory of a method in this process, and then its operations.

    Other work on the machine changes neither. The peak is that of ``calls`` calls. One
    more call counts the operations.
    """
    torch.set_num_threads(threads)
    place = torch.device(device)
    call = method_on_new_problem(problem, method, place, layout)
    yield peak_of(call, place, calls)
    yield operations_of(call)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print lines and tables, write the records and the picture."""
    parser = _parser()
    options = parser.parse_args(arguments)
    config = CONFIGS[options.config]
    changed: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("device", "rounds", "threads", "layout")
        if getattr(options, name)
    }
    if options.leave_out:
        known = config.methods or ALL_METHODS
        changed["methods"] = tuple(m for m in known if m not in options.leave_out)
    if options.problem:
        start = options.problem.lower()
        kept = tuple(p for p in config.problems if p[0].lower().startswith(start))
        if not kept:
            names = "; ".join(name for name, _ in config.problems)
            parser.error(
                f"expected the beginning of a problem's name, got "
                f"{options.problem!r}; there are: {names}"
            )
        changed["problems"] = kept
    config = dataclasses.replace(config, **changed)
    records = measure(config, partial(_print_and_write, config, options.json))
    print_records(records)
    if options.picture is not None:
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        draw_costs(records, options.picture)


def _print_and_write(
    config: Config, path: Path | None, records: list[CostRecord]
) -> None:
    """Print the latest record, and write all records so far.

    A run may take an hour and be stopped.
    """
    print(line_of(records[-1]), flush=True)
    if path is not None:
        write_records(path, config, torch.device(config.device), records)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost",
        description="Seconds and peak memory of a meta-step.",
    )
    parser.add_argument("--config", choices=sorted(CONFIGS), default="default")
    parser.add_argument(
        "--problem", help="measure only problems whose names begin with this text"
    )
    parser.add_argument("--rounds", type=int, help="number of timed calls per method")
    parser.add_argument("--threads", type=int, help="number of PyTorch's threads")
    parser.add_argument(
        "--leave-out",
        nargs="*",
        default=[],
        choices=sorted(ALL_METHODS),
        metavar="METHOD",
        help="names of methods that are not measured",
    )
    parser.add_argument(
        "--layout",
        choices=sorted(LAYOUTS),
        help="memory layout of all methods; default: the faster one of each method",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    return parser


if __name__ == "__main__":
    main()
