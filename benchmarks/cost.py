"""Seconds and peak memory of a meta-step, by this package and by other libraries.

    python -m benchmarks.cost --json FILE --picture FILE
    python -m benchmarks.cost --config smoke
    python -m benchmarks.cost --problem maml

There are three problems: Meta-Weight-Net, learned feature-wise transformation (LFT) and
MAML. Seconds are also given as multiples of one plain training step of the same
network. Each method gets the network in the memory layout in which it is faster.
"""

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import (
    betty_methods,
    learn2learn_methods,
    maml_tasks,
    methods,
    torchopt_methods,
)
from benchmarks.cost_pictures import draw_costs
from benchmarks.maml_tasks import MamlConfig, maml_task
from benchmarks.measuring import (
    Call,
    CostRecord,
    imports_frozen,
    in_fresh_process,
    operations_of,
    peak_of,
    print_records,
    record_of,
    timed,
    warmed_up,
    write_records,
)
from benchmarks.methods import PLAIN_STEP
from benchmarks.problems import (
    TransformsConfig,
    WeightNetConfig,
    transforms_problem,
    weight_net_problem,
)

AnyMethod = Callable[[Any], Any]

_BILEVEL: dict[str, AnyMethod] = {
    **methods.METHODS,
    **learn2learn_methods.METHODS,
    **torchopt_methods.METHODS,
    **betty_methods.METHODS,
}
# In LFT the base step always comes first.
_TRANSFORMS = {n: m for n, m in _BILEVEL.items() if n != "guided, base first"}
_MAML: dict[str, AnyMethod] = {
    **maml_tasks.METHODS,
    **torchopt_methods.MAML_METHODS,
    **betty_methods.MAML_METHODS,
}

# These methods get the contiguous layout: second derivatives of batch normalisation are
# slow with the channels last.
CONTIGUOUS = (
    "second order (higher)",
    "exact",
    "learn2learn, second order",
    "TorchOpt, unrolled",
    "TorchOpt, implicit",
    "Betty, neumann",
    "Betty, cg",
)


@dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        problems: names and configurations of problems.
        methods: names of methods; None: all methods of each problem.
        rounds: timed calls of each method; one call before them is not timed.
        device: "cpu" or "cuda".
        threads: number of PyTorch's threads on a CPU.
        fresh: whether each method runs in a process of its own to measure memory in two
            calls and operations in a third. False: one call each in this process. That
            is faster, but the memory that earlier methods left behind changes the
            peak, so it is for trials only.
    """

    problems: tuple[tuple[str, WeightNetConfig | TransformsConfig | MamlConfig], ...]
    methods: tuple[str, ...] | None = None
    rounds: int = 3
    device: str = "cpu"
    threads: int = 2
    fresh: bool = True


def _transforms(depth: int, side: int) -> tuple[str, TransformsConfig]:
    config = TransformsConfig(f"resnet{depth}", image_size=side)
    return f"LFT, ResNet-{depth}, {side} px", config


def _maml(steps: int) -> tuple[str, MamlConfig]:
    plural = "" if steps == 1 else "s"
    return f"MAML, CNN4, {steps} step{plural}", MamlConfig(steps)


_WEIGHT_NET = ("Meta-Weight-Net, ResNet-32, 32 px", WeightNetConfig())
_ALL_MAML = tuple(_maml(steps) for steps in (1, 5, 10))
_MANY_CANDIDATES = ("Algorithm 1, K = 8", "Algorithm 1, K = 32", "evograd, K = 32")
_FEW_CANDIDATES = tuple(m for m in {**_BILEVEL, **_MAML} if m not in _MANY_CANDIDATES)
_LARGE = (
    *(_transforms(depth, 84) for depth in (18, 34)),
    *(_transforms(depth, 224) for depth in (10, 18, 34)),
)

CONFIGS = {
    "default": Config((_WEIGHT_NET, _transforms(10, 84), _maml(1))),
    # A single round, because a step can take a minute.
    "maml-steps": Config(
        (_maml(5), _maml(10)),
        methods=_FEW_CANDIDATES,
        rounds=1,
    ),
    "lft-large": Config(
        _LARGE,
        methods=(
            PLAIN_STEP,
            "naive Algorithm 1",
            "second order (higher)",
            "evograd, K = 2",
            "guided, forward",
            "guided, central",
            "exact",
        ),
        rounds=1,
    ),
    "gpu": Config(
        (_WEIGHT_NET, _transforms(10, 84), *_LARGE, *_ALL_MAML),
        rounds=10,
        device="cuda",
    ),
    "smoke": Config(
        (
            ("Meta-Weight-Net, small", WeightNetConfig("small", 8, 20)),
            (
                "LFT, CNN4",
                TransformsConfig("cnn4", "relationnet", 2, 1, 2, image_size=16),
            ),
            ("MAML, narrow", MamlConfig(1, 2, 2, 2, image_size=16, hidden=4)),
        ),
        methods=_FEW_CANDIDATES,
        rounds=1,
        threads=1,
        fresh=False,
    ),
}


def family_of(config: Any) -> tuple[Callable[..., Any], Mapping[str, AnyMethod]]:
    """Return the function that makes a configuration's problem, and its methods."""
    if isinstance(config, WeightNetConfig):
        return weight_net_problem, _BILEVEL
    if isinstance(config, TransformsConfig):
        return transforms_problem, _TRANSFORMS
    return maml_task, _MAML


def method_on_new_problem(config: Any, method: str, device: torch.device) -> Call:
    """Make a configuration's problem, and return a call of a method on it."""
    build, known = family_of(config)
    chosen = method in CONTIGUOUS
    layout = torch.contiguous_format if chosen else torch.channels_last
    return partial(known[method], build(config, device, layout))


def measure(
    config: Config, after: Callable[[list[CostRecord]], None] = lambda records: None
) -> list[CostRecord]:
    """Return a record for each problem and method.

    Args:
        config: what is measured.
        after: function that is called after each problem with all records so far.

    Raises:
        RuntimeError: if the plain step of a problem fails or is left out.
    """
    torch.set_num_threads(config.threads)
    records: list[CostRecord] = []
    with nullcontext() if config.fresh else imports_frozen():
        for name, problem in config.problems:
            records += _measure_one(config, name, problem)
            after(records)
    return records


def _measure_one(config: Config, name: str, problem: Any) -> list[CostRecord]:
    device = torch.device(config.device)
    known = family_of(problem)[1]
    chosen = [m for m in known if config.methods is None or m in config.methods]
    calls, errors = warmed_up(
        {method: method_on_new_problem(problem, method, device) for method in chosen}
    )
    if PLAIN_STEP not in calls:
        reason = errors.get(PLAIN_STEP, "it is not among the methods")
        raise RuntimeError(
            f"expected the plain step of {name}, which costs are compared with, to "
            f"run, but: {reason}"
        )
    seconds = timed(calls, config.rounds, device)
    del calls
    found = {method: _work(config, problem, method) for method in seconds}
    step = found[PLAIN_STEP][0]
    records = []
    for method in chosen:
        if method in errors:
            records.append(CostRecord(name, method, error=errors[method]))
            continue
        work, error = found[method]
        passes = 3 * work.operations / step.operations if work and step else None
        peak = work.peak_bytes if work else None
        own = seconds[method]
        records.append(
            record_of(name, method, own, seconds[PLAIN_STEP], peak, error, passes)
        )
    return records


class Work(NamedTuple):
    """Memory and arithmetic of a method. Other work on the machine changes neither.

    Attributes:
        peak_bytes: the most memory in use at once.
        operations: number of floating-point operations.
    """

    peak_bytes: int
    operations: int


def _work(config: Config, problem: Any, method: str) -> tuple[Work | None, str | None]:
    arguments = (problem, method, config.device, config.threads)
    if config.fresh:
        return in_fresh_process(work_here, *arguments)
    return work_here(*arguments, calls=1), None


def work_here(
    problem: Any, method: str, device: str, threads: int, calls: int = 2
) -> Work:
    """Run a method in this process, and return its peak memory and operations.

    The peak is that of ``calls`` calls. One more call counts the operations.
    """
    torch.set_num_threads(threads)
    place = torch.device(device)
    call = method_on_new_problem(problem, method, place)
    return Work(peak_of(call, place, calls), operations_of(call))


def main(arguments: list[str] | None = None) -> None:
    """Measure, print tables, write the records and the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost",
        description="Seconds and peak memory of a meta-step.",
    )
    parser.add_argument("--config", choices=sorted(CONFIGS), default="default")
    parser.add_argument(
        "--problem", help="measure only problems whose names begin with this text"
    )
    parser.add_argument("--rounds", type=int, help="number of timed calls per method")
    parser.add_argument(
        "--leave-out",
        nargs="*",
        default=[],
        choices=sorted({**_BILEVEL, **_MAML}),
        metavar="METHOD",
        help="names of methods that are not measured",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args(arguments)
    config = CONFIGS[options.config]
    if options.device:
        config = dataclasses.replace(config, device=options.device)
    if options.rounds:
        config = dataclasses.replace(config, rounds=options.rounds)
    if options.leave_out:
        known = config.methods or tuple({**_BILEVEL, **_MAML})
        kept_methods = tuple(m for m in known if m not in options.leave_out)
        config = dataclasses.replace(config, methods=kept_methods)
    if options.problem:
        start = options.problem.lower()
        kept = tuple(p for p in config.problems if p[0].lower().startswith(start))
        if not kept:
            names = "; ".join(name for name, _ in config.problems)
            parser.error(
                f"expected the beginning of a problem's name, got "
                f"{options.problem!r}; there are: {names}"
            )
        config = dataclasses.replace(config, problems=kept)

    def save(records: list[CostRecord]) -> None:
        # Files are written after each problem: a run may take an hour and be stopped.
        if options.json is not None:
            write_records(options.json, config, torch.device(config.device), records)
        if options.picture is not None:
            options.picture.parent.mkdir(parents=True, exist_ok=True)
            draw_costs(records, options.picture)

    print_records(measure(config, save))


if __name__ == "__main__":
    main()
