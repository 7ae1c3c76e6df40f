"""How good each method's hypergradient is, and what it costs.

    python -m benchmarks.fidelity --json FILE --picture FILE
    python -m benchmarks.fidelity --config smoke

Every method estimates the hypergradients of the same batches, from the same trained
weights, in float64. Each estimate ĝ is held against the exact g through ``higher``:
its direction and length, bias and noise, and how far the outer loss really goes down
along it,

    Σ [L(θ'(λ)) − L(θ'(λ − δ ĝ/‖ĝ‖))] / Σ [L(θ'(λ)) − L(θ'(λ − δ g/‖g‖))],

sums over batches, with θ' computed anew at the moved λ. On networks with kinks this
counts most, since g does not see the kinks that a finite step crosses. Methods with
random perturbations draw several times for each batch.

The noise of the network's own layers is the same for all, except where a method draws
it anew at each evaluation of the inner loss: Algorithm 1 written out, Betty's methods
and TorchOpt's implicit one. There these are random as well. Lengths are those that a
method returns; Betty's are not in the scale of the others, for it takes θ for an
optimum of the inner loss.
"""

import argparse
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from rich.progress import Progress

from benchmarks.fidelity_estimates import (
    PEERS,
    PLAIN,
    REFERENCE,
    drops,
    estimate,
    is_random,
    outer_value,
    scale_of,
)
from benchmarks.fidelity_pictures import draw
from benchmarks.fidelity_problems import Problem, SampleWeights, Transforms, prepared
from benchmarks.fidelity_records import NotRun, Record, Tally, table
from benchmarks.measuring import warmed_up, wide_console, write_records
from benchmarks.methods import METHODS
from l2l_evograd.oracle.fidelity import fidelity, flat
from l2l_evograd.oracle.unrolled import Unrolled

_WIDTH = 140
_LARGE_POPULATION = ("evograd, K = 32",)

# On a ResNet-10 a batch takes minutes with all methods.
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
        problems: each with a name of its own.
        batches: of every problem, at least 2.
        threads: of PyTorch on a CPU.
        device: "cpu" or "cuda".

    Raises:
        ValueError: for too few batches or draws to have an error.
    """

    problems: tuple[Problem, ...]
    batches: int = 20
    threads: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse what no error can be computed from."""
        draws = min(problem.draws for problem in self.problems)
        if self.batches < 2 or draws < 2:
            raise ValueError(
                f"expected at least 2 batches and 2 draws, got {self.batches} and "
                f"{draws}"
            )


CONFIGS = {
    "default": Config(
        (
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
    ),
    "resnet10": Config(
        (
            Transforms(
                "transforms, ResNet-10",
                smooth=False,
                shots=2,
                queries=3,
                draws=2,
                left_out=_SLOW,
            ),
        )
    ),
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
                queries=2,
                image_size=16,
                images_per_class=4,
                training=5,
                draws=2,
                left_out=_LARGE_POPULATION,
            ),
        ),
        batches=2,
    ),
}


def measured(
    config: Problem, batches: int, device: torch.device, advance: Callable[[], None]
) -> list[Record | NotRun]:
    """Return one record for each method.

    Args:
        config: the problem.
        batches: how many.
        device: to measure on.
        advance: called after every batch.
    """
    source, noisy = prepared(config, device), isinstance(config, Transforms)
    calls = {
        name: partial(estimate, name, method, source, 0)
        for name, method in PEERS.items()
        if name not in config.left_out
    }
    first = warmed_up(calls)
    methods = {**METHODS, **{name: PEERS[name] for name in first.running}}
    methods = {n: m for n, m in methods.items() if n not in config.left_out}
    plain, reference = methods.pop(PLAIN), methods.pop(REFERENCE)
    methods = {REFERENCE: reference, **methods}  # comes first, and gives g
    tallies = {name: Tally() for name in methods}
    steps = []
    for batch in range(batches):
        start = source(batch)
        ground = Unrolled(
            start.model, start.inner, start.outer, start.hyperparameters, start.lr
        )
        steps.append(estimate(PLAIN, plain, source, batch)[1])
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
    found: list[Record | NotRun] = [
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
    failed = [NotRun(config.name, name, why) for name, why in first.errors.items()]
    return found + failed


def measure(
    config: Config, advance: Callable[[], None] = lambda: None
) -> list[Record | NotRun]:
    """Return one record for each problem and method; ``advance`` counts batches."""
    torch.set_num_threads(config.threads)
    device = torch.device(config.device)
    return [
        record
        for problem in config.problems
        for record in measured(problem, config.batches, device, advance)
    ]


def main() -> None:
    """Measure, print tables, write the records and draw the picture."""
    parser = argparse.ArgumentParser(description="Fidelity and cost of hypergradients.")
    parser.add_argument("--config", choices=sorted(CONFIGS), default="default")
    parser.add_argument(
        "--problem", action="append", help="name of one; may be given several times"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    config = CONFIGS[arguments.config]
    known = {problem.name: problem for problem in config.problems}
    chosen = arguments.problem or list(known)
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"unknown problem {unknown[0]!r}; there are {', '.join(known)}")
    problems = tuple(known[name] for name in chosen)
    config = dataclasses.replace(config, problems=problems, device=arguments.device)
    console = wide_console(_WIDTH)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("batches", total=config.batches * len(chosen))
        records = measure(config, lambda: progress.advance(task))
    for name in chosen:
        console.print(table([r for r in records if r.problem == name]))
    if arguments.json is not None:
        write_records(arguments.json, config, torch.device(config.device), records)
    if arguments.picture is not None:
        arguments.picture.parent.mkdir(parents=True, exist_ok=True)
        draw([dataclasses.asdict(record) for record in records], arguments.picture)


if __name__ == "__main__":
    main()
