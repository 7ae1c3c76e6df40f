"""Accuracy and cost of each method's hypergradient.

    python -m benchmarks.fidelity --json FILE --picture FILE
    python -m benchmarks.fidelity --config step-lengths --json FILE
    python -m benchmarks.fidelity --config smoke

Every method estimates the hypergradients of the same batches, from the same trained
weights, in float64. Each estimate ĝ is compared with the exact hypergradient g, which
``higher`` computes. The figures are direction and length, bias and noise, and how far
the outer loss decreases along ĝ compared with g:

    Σ [L(θ'(λ)) − L(θ'(λ − δ ĝ/‖ĝ‖))] / Σ [L(θ'(λ)) − L(θ'(λ − δ g/‖g‖))].

The sums are over batches, and θ' is computed again at the moved λ. This ratio matters
most for networks with kinks, because g does not see the kinks that a finite step
crosses. Methods with random perturbations make several draws for each batch.

The noise of the network's layers is the same for all methods, except for those that
draw new noise at each evaluation of the inner loss: Algorithm 1 written out, Betty's
methods and TorchOpt's implicit one. With noisy layers, the estimates of these methods
are random as well. The estimates of Algorithm 1 are scaled to the learning rate of the
others. The lengths of Betty's estimates cannot be compared, because Betty treats θ as
an optimum of the inner loss.
"""

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from rich.progress import Progress

from benchmarks.fidelity_estimates import (
    PEERS,
    REFERENCE,
    STEP_LENGTHS,
    drops,
    estimate,
    is_random,
    outer_value,
    scale_of,
)
from benchmarks.fidelity_pictures import draw
from benchmarks.fidelity_problems import (
    Problem,
    SampleWeights,
    Transforms,
    train_source,
)
from benchmarks.fidelity_records import FailedMethod, FidelityRecord, Tally, table
from benchmarks.measuring import imports_frozen, warmed_up, wide_console, write_records
from benchmarks.methods import METHODS, PLAIN_STEP, BilevelMethod
from l2l_evograd.checks import check_count
from l2l_evograd.oracle.fidelity import fidelity, flat
from l2l_evograd.oracle.unrolled import Unrolled

_WIDTH = 140
_LARGE_POPULATION = ("evograd, K = 32",)

# Left out on a ResNet-10, where a batch would take minutes with all methods.
_SLOW = (
    "Algorithm 1",
    "naive Algorithm 1",
    "evograd, K = 8",
    *_LARGE_POPULATION,
    "guided, base first",
    *(name for name in PEERS if name != "Betty, darts"),
)


@dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        problems: problems with different names.
        batches: number of batches of each problem, at least 2.
        threads: number of PyTorch's threads on a CPU.
        device: "cpu" or "cuda".
        step_lengths: whether the methods are ``Guided`` at several lengths of its step.
            False: all methods, of this package and of others.

    Raises:
        InputError: for fewer than 2 batches or draws, which have no standard error.
    """

    problems: tuple[Problem, ...]
    batches: int = 20
    threads: int = 1
    device: str = "cpu"
    step_lengths: bool = False

    def __post_init__(self) -> None:
        """Check the numbers of batches and draws."""
        check_count(self.batches, "batches", least=2)
        for problem in self.problems:
            check_count(problem.draws, f"draws of {problem.name}", least=2)


_PROBLEMS = (
    SampleWeights("sample weights, ReLU", smooth=False),
    SampleWeights("sample weights, smooth", smooth=True),
    Transforms(
        "transforms, CNN4, smooth",
        smooth=True,
        backbone="cnn4",
        shots=2,
        queries=3,
        image_size=16,
        left_out=_LARGE_POPULATION,
    ),
)
_RESNET = Transforms(
    "transforms, ResNet-10",
    smooth=False,
    shots=2,
    queries=3,
    draws=2,
    left_out=_SLOW,
)

CONFIGS = {
    "default": Config(_PROBLEMS),
    "resnet10": Config((_RESNET,)),
    "step-lengths": Config((_RESNET, *_PROBLEMS), step_lengths=True),
    "smoke": Config(
        (
            SampleWeights(
                "sample weights, smooth",
                smooth=True,
                batch_size=12,
                image_size=16,
                images_per_class=6,
                training=20,
                draws=2,
            ),
            Transforms(
                "transforms, CNN4",
                smooth=False,
                backbone="cnn4",
                ways=2,
                shots=1,
                queries=1,
                image_size=16,
                images_per_class=4,
                training=5,
                deltas=(0.03,),
                draws=2,
                left_out=("evograd, K = 8", *_LARGE_POPULATION),
            ),
        ),
        batches=2,
    ),
}


def measured(
    config: Problem,
    batches: int,
    device: torch.device,
    advance: Callable[[], None] = lambda: None,
    own: Mapping[str, BilevelMethod] = METHODS,
    peers: Mapping[str, BilevelMethod] = PEERS,
) -> list[FidelityRecord | FailedMethod]:
    """Return one record for each method.

    Args:
        config: the problem.
        batches: number of batches.
        device: device of the measurement.
        advance: function that is called after each batch.
        own: methods by name, with the plain step and the reference.
        peers: methods of other libraries, by name; those that fail on the first batch
            are reported as failed.
    """
    source, noisy = train_source(config, device), isinstance(config, Transforms)
    calls = {
        name: partial(estimate, name, method, source, 0)
        for name, method in peers.items()
        if name not in config.left_out
    }
    first = warmed_up(calls)
    methods = {**own, **{name: peers[name] for name in first.running}}
    methods = {n: m for n, m in methods.items() if n not in config.left_out}
    training_step = methods.pop(PLAIN_STEP)
    # The reference comes first, because the others are compared with its result.
    methods = {REFERENCE: methods.pop(REFERENCE), **methods}
    tallies = {name: Tally() for name in methods}
    steps = []
    for batch in range(batches):
        start = source(batch)
        ground = Unrolled(
            start.model, start.inner, start.outer, start.hyperparameters, start.lr
        )
        steps.append(estimate(PLAIN_STEP, training_step, source, batch)[1])
        before, exact = outer_value(ground, batch), torch.zeros(0)
        for name, method in methods.items():
            tally, random = tallies[name], is_random(name, noisy)
            results = [
                estimate(name, method, source, batch, draw)
                for draw in range(config.draws if random else 1)
            ]
            vectors = torch.stack([flat(found) for found, _ in results])
            exact = vectors[0] if name == REFERENCE else exact
            tally.fidelities.append(fidelity(vectors, exact, random))
            fallen = [
                drops(ground, g, config.deltas, batch, before) for g, _ in results
            ]
            tally.drops.append(torch.tensor(fallen, dtype=torch.float64))
            tally.seconds += [seconds for _, seconds in results]
        advance()
    found: list[FidelityRecord | FailedMethod] = [
        tally.record(
            config.name,
            name,
            scale_of(name, start.lr),
            config.deltas,
            tallies[REFERENCE],
            median(steps),
        )
        for name, tally in tallies.items()
    ]
    errors = first.errors.items()
    return found + [FailedMethod(config.name, name, error) for name, error in errors]


def measure(
    config: Config,
    advance: Callable[[], None] = lambda: None,
    after: Callable[[list[FidelityRecord | FailedMethod]], None] = lambda records: None,
) -> list[FidelityRecord | FailedMethod]:
    """Return one record for each problem and method.

    Args:
        config: what is measured.
        advance: function that is called after each batch.
        after: function that is called after each problem with all records so far.
    """
    torch.set_num_threads(config.threads)
    device = torch.device(config.device)
    own, peers = METHODS, PEERS
    if config.step_lengths:
        own = {name: METHODS[name] for name in (PLAIN_STEP, REFERENCE)} | STEP_LENGTHS
        peers = {}
    records: list[FidelityRecord | FailedMethod] = []
    with imports_frozen():
        for problem in config.problems:
            records += measured(problem, config.batches, device, advance, own, peers)
            after(records)
    return records


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, write the records and draw the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fidelity",
        description="Accuracy and cost of hypergradients.",
    )
    parser.add_argument("--config", choices=sorted(CONFIGS), default="default")
    parser.add_argument(
        "--problem",
        action="append",
        help="name of a problem to measure; may be given several times",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args(arguments)
    config = CONFIGS[options.config]
    known = {problem.name: problem for problem in config.problems}
    chosen = options.problem or list(known)
    if unknown := [name for name in chosen if name not in known]:
        parser.error(
            f"expected the name of a problem, got {unknown[0]!r}; there are: "
            f"{'; '.join(known)}"
        )
    problems = tuple(known[name] for name in chosen)
    config = dataclasses.replace(config, problems=problems, device=options.device)
    console = wide_console(_WIDTH)

    def print_and_write(records: list[FidelityRecord | FailedMethod]) -> None:
        name = records[-1].problem
        console.print(table([r for r in records if r.problem == name]))
        if options.json is not None:
            write_records(options.json, config, torch.device(config.device), records)

    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("batches", total=config.batches * len(chosen))
        records = measure(config, lambda: progress.advance(task), print_and_write)
    if options.picture is not None:
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        draw([dataclasses.asdict(record) for record in records], options.picture)


if __name__ == "__main__":
    main()
