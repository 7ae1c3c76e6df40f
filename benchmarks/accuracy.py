"""Final accuracy of each method, at equal iterations and at equal training time.

    python -m benchmarks.accuracy --json FILE --picture FILE
    python -m benchmarks.accuracy --config smoke

There are two problems, both on the package's own data: wrong labels with a
Meta-Weight-Net, and cross-domain few-shot learning with learned feature-wise
transformation. All methods of a seed start from the same weights. A first run gives
every method the same number of iterations. A second run gives every method the training
time that the exact method took in the first run: the number of iterations follows from
the median seconds of an iteration in the first run. Schedules of learning rates are
stretched with the iterations. The time of tests is not counted.
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.console import Console

from benchmarks.accuracy_pictures import draw_accuracies
from benchmarks.accuracy_records import line_of, table
from benchmarks.measuring import environment, wide_console
from l2l_evograd.experiments.crossdomain.data.domains import (
    built_in_domains,
    usual_image_size,
)
from l2l_evograd.experiments.crossdomain.experiment import CrossDomainExperiment
from l2l_evograd.experiments.crossdomain.settings import CrossDomainSettings
from l2l_evograd.experiments.folder import write_json
from l2l_evograd.experiments.noisy_labels.experiment import NoisyLabelExperiment
from l2l_evograd.experiments.noisy_labels.settings import NoisyLabelSettings
from l2l_evograd.experiments.noisy_labels.sources import read_source
from l2l_evograd.experiments.results import deviation
from l2l_evograd.experiments.settings import RunSettings

Figures = dict[str, Any]

PROBLEMS = ("noisy-labels", "cross-domain")

_WIDTH = 110


@dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        noisy: settings of
            :class:`~l2l_evograd.experiments.noisy_labels.settings.NoisyLabelSettings`
            that differ from the defaults.
        crossdomain: settings of
            :class:`~l2l_evograd.experiments.crossdomain.settings.CrossDomainSettings`
            that differ from the defaults.
        seeds: number of trainings of each method.
        images_per_class: images of each class in each domain of the cross-domain
            problem.
        threads: number of PyTorch's threads.
    """

    noisy: Mapping[str, Any]
    crossdomain: Mapping[str, Any]
    seeds: int
    images_per_class: int = 30
    threads: int = 1


CONFIGS = {
    "default": Config({"iterations": 210}, {"iterations": 60}, seeds=3),
    "smoke": Config(
        {
            "iterations": 2,
            "train_images": 40,
            "test_images": 20,
            "batch_size": 10,
            "methods": ("baseline", "exact"),
        },
        {
            "iterations": 1,
            "image_size": 16,
            "pretrain_epochs": 1,
            "episodes": 2,
            "ways": 2,
            "shots": 1,
            "queries": 1,
            "methods": ("none", "lft-exact"),
        },
        seeds=2,
        images_per_class=4,
    ),
}


@dataclass(frozen=True)
class Problem:
    """One of the two experiments.

    Attributes:
        name: name for tables.
        settings: settings of the run at equal iterations.
        run: function that makes a run and returns the figures of each method and seed.
            Its arguments are the settings, the folder of the run, and folders of other
            runs whose pre-trained encoders may be used.
        accuracy: function that returns the accuracy from the figures of one training.
        slowest: name of the method whose training time the others get.
    """

    name: str
    settings: RunSettings
    run: Callable[[Any, Path, Sequence[Path]], list[Figures]]
    accuracy: Callable[[Figures], float]
    slowest: str


def noisy_labels(config: Config) -> Problem:
    """Return the experiment with wrong labels."""
    settings = NoisyLabelSettings(**config.noisy, seeds=config.seeds, device="cpu")
    quiet = Console(quiet=True)
    source = read_source(None, settings.image_size, quiet)

    def run(
        chosen: NoisyLabelSettings, out: Path, others: Sequence[Path]
    ) -> list[Figures]:
        return NoisyLabelExperiment(chosen, out, quiet, source).run().runs

    return Problem(
        "noisy labels", settings.resolved(), run, lambda found: found["last"], "exact"
    )


def cross_domain(config: Config) -> Problem:
    """Return the experiment in few-shot learning on an unseen domain."""
    settings = CrossDomainSettings(
        **config.crossdomain, seeds=config.seeds, device="cpu"
    )
    quiet = Console(quiet=True)
    size = settings.image_size or usual_image_size(settings.backbone, None)
    # All runs share the domains, so that each image is drawn once.
    domains = built_in_domains(size, images_per_class=config.images_per_class)

    def run(
        chosen: CrossDomainSettings, out: Path, others: Sequence[Path]
    ) -> list[Figures]:
        return CrossDomainExperiment(chosen, out, quiet, others, domains).run().runs

    return Problem(
        "cross-domain",
        settings,
        run,
        lambda found: found["accuracy"]["mean"],
        "lft-exact",
    )


def measure(
    config: Config,
    console: Console,
    after: Callable[[list[Figures]], None] = lambda records: None,
    only: str | None = None,
) -> list[Figures]:
    """Return one record for each problem, budget and method.

    Args:
        config: what is measured.
        console: console that progress is printed on.
        after: function that is called after each record with all records so far.
        only: name of a single problem to measure; None: both problems.
    """
    torch.set_num_threads(config.threads)
    records = []
    makers = dict(zip(PROBLEMS, (noisy_labels, cross_domain), strict=True))
    for make in makers.values() if only is None else [makers[only]]:
        problem = make(config)
        with tempfile.TemporaryDirectory() as folder:
            for record in _measure(problem, Path(folder), console):
                console.print(line_of(record), highlight=False, soft_wrap=True)
                records.append(record)
                after(records)
    return records


def _measure(problem: Problem, folder: Path, console: Console) -> Iterator[Figures]:
    settings: Any = problem.settings
    console.print(f"{problem.name}, equal iterations", highlight=False)
    runs = problem.run(settings, folder / "equal", ())
    records = _records(problem, "equal iterations", settings.iterations, runs)
    yield from records
    seconds = {r["method"]: r["seconds_per_iteration"] for r in records}
    later: list[Figures] = []
    counts: dict[str, int] = {}
    for method in settings.methods:
        ratio = seconds[problem.slowest] / seconds[method]
        counts[method] = max(1, round(settings.iterations * ratio))
        console.print(
            f"{problem.name}, equal time: {method}, {counts[method]} iterations",
            highlight=False,
        )
        own = dataclasses.replace(
            settings, methods=(method,), iterations=counts[method]
        )
        later += problem.run(own, folder / method, [folder / "equal"])
        # Gains are over the first method, so the record needs the methods so far.
        yield _records(problem, "equal time", counts, later)[-1]


def _records(
    problem: Problem,
    budget: str,
    iterations: int | Mapping[str, int],
    runs: Sequence[Figures],
) -> list[Figures]:
    """Return the methods' records. Gains over the first method are paired by seed."""
    methods = list(dict.fromkeys(run["method"] for run in runs))
    found = {m: [run for run in runs if run["method"] == m] for m in methods}
    accuracies = {m: [problem.accuracy(run) for run in found[m]] for m in methods}
    records = []
    for method in methods:
        count = iterations if isinstance(iterations, int) else iterations[method]
        seconds = fmean(run["seconds_per_iteration"] for run in found[method])
        own = accuracies[method]
        gains = [a - b for a, b in zip(own, accuracies[methods[0]], strict=True)]
        records.append(
            {
                "problem": problem.name,
                "budget": budget,
                "method": method,
                "iterations": count,
                "seconds_per_iteration": seconds,
                "training_seconds": count * seconds,
                "accuracies": own,
                "accuracy": fmean(own),
                "accuracy_error": _error(own),
                "gain": fmean(gains),
                "gain_error": _error(gains),
            }
        )
    return records


def _error(values: Sequence[float]) -> float:
    """Return the standard error of a mean; 0 for a single value."""
    return deviation(values) / len(values) ** 0.5


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, write the records and the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description="Accuracy at equal iterations and at equal training time.",
    )
    parser.add_argument("--config", choices=sorted(CONFIGS), default="default")
    parser.add_argument("--problem", choices=PROBLEMS, help="measure only this one")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    chosen = parser.parse_args(arguments)
    config = CONFIGS[chosen.config]
    console = wide_console(_WIDTH)

    def save(records: list[Figures]) -> None:
        # Files are written after each record: a run may take an hour and be stopped.
        if chosen.json is not None:
            content = {
                "config": dataclasses.asdict(config),
                "environment": environment(torch.device("cpu"), config.threads),
                "records": records,
            }
            chosen.json.parent.mkdir(parents=True, exist_ok=True)
            write_json(chosen.json, content)

    records = measure(config, console, save, chosen.problem)
    console.print(table(records))
    if chosen.picture is not None:
        chosen.picture.parent.mkdir(parents=True, exist_ok=True)
        draw_accuracies(records, chosen.picture)


if __name__ == "__main__":
    main()
