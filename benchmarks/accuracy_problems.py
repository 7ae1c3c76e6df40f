"""The problems of the accuracy benchmark: experiments of the package, and the gallery.

All have the same form: train some methods, each for its own number of iterations, on
some seeds, and return how good each trained model is. All methods of a seed start from
the same weights and see the same data.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from examples.gallery import (
    augmentation_strength,
    class_weights,
    loss_weights,
    weight_decay,
)
from examples.gallery.gallery import Problem as GalleryProblem
from l2l_evograd.experiments.crossdomain.data.domains import (
    built_in_domains,
    usual_image_size,
)
from l2l_evograd.experiments.crossdomain.experiment import CrossDomainExperiment
from l2l_evograd.experiments.crossdomain.settings import CrossDomainSettings
from l2l_evograd.experiments.noisy_labels.experiment import NoisyLabelExperiment
from l2l_evograd.experiments.noisy_labels.settings import NoisyLabelSettings
from l2l_evograd.experiments.noisy_labels.sources import read_source
from l2l_evograd.experiments.rotation.experiment import RotationExperiment
from l2l_evograd.experiments.rotation.settings import RotationSettings
from l2l_evograd.experiments.settings import RunSettings

# The columns of the table. "fixed" is the control that a method has to beat to show
# that learning, and not λ as such, brings the gain; or the known answer as a bound.
NONE, PAPER, EVOGRAD, GUIDED, EXACT, FIXED = (
    *("no learning", "Algorithm 1", "evograd", "guided", "exact", "fixed λ"),
)
COLUMNS = (NONE, PAPER, EVOGRAD, GUIDED, EXACT, FIXED)

_GALLERY_METHODS = {
    **{NONE: "none", PAPER: "evograd-paper", EVOGRAD: "evograd"},
    **{GUIDED: "guided", EXACT: "exact", FIXED: "known"},
}


@dataclass(frozen=True)
class Training:
    """One trained model.

    Attributes:
        quality: how good it is on held-out data.
        seconds_per_iteration: median.
    """

    quality: float
    seconds_per_iteration: float


# Maps methods, by the problem's own names, to one training for each seed.
Trainings = dict[str, list[Training]]


@dataclass(frozen=True)
class Problem:
    """A problem with the methods that are compared on it.

    Attributes:
        name: name on the command line and in tables.
        methods: maps columns of the table to the problem's own names.
        iterations: number of iterations of every method in the first run.
        quality: what is measured.
        accuracy: whether that is a fraction of right answers, and better if higher;
            otherwise it is an error, and better if lower.
        train: function of the iterations of each method, the seeds and a folder.
    """

    name: str
    methods: Mapping[str, str]
    iterations: int
    quality: str
    accuracy: bool
    train: Callable[[Mapping[str, int], Sequence[int], Path], Trainings]


def sample_weights(smoke: bool) -> Problem:
    """Return wrong labels with one weight for each sample of a batch."""
    methods = {NONE: "baseline", PAPER: "evograd-paper", EVOGRAD: "evograd"}
    methods |= {GUIDED: "guided", EXACT: "exact", FIXED: "random"}
    return _noisy_labels("sample weights", methods, smoke, weighting="samples")


def weight_net(smoke: bool) -> Problem:
    """Return wrong labels with a Meta-Weight-Net after a warm start."""
    methods = {NONE: "baseline", PAPER: "evograd-paper", EVOGRAD: "evograd"}
    methods |= {GUIDED: "guided", EXACT: "exact", FIXED: "frozen"}
    options = {"noise": "uniform", "epochs": 20, "warm_up": 28, "meta_lr": 0.1}
    return _noisy_labels("weight net", methods, smoke, weighting="net", **options)


def _noisy_labels(
    name: str, methods: Mapping[str, str], smoke: bool, **options: Any
) -> Problem:
    if smoke:
        options |= {"iterations": 2, "train_images": 40, "test_images": 20}
        options |= {"batch_size": 10, "warm_up": 1, "epochs": None}
    settings = NoisyLabelSettings(device="cpu", **options)
    source = read_source(None, settings.image_size, Console(quiet=True))
    quiet = Console(quiet=True)
    whole = NoisyLabelExperiment(settings, Path(), quiet, source)  # writes nothing
    settings, iterations = whole.settings, whole.iterations

    def run(chosen: Any, out: Path) -> list[dict[str, Any]]:
        return NoisyLabelExperiment(chosen, out, quiet, source).run().runs

    settings = dataclasses.replace(settings, epochs=None, iterations=iterations)
    return Problem(
        name,
        methods,
        iterations,
        "test accuracy",
        True,
        _of_experiment(settings, run, lambda found: float(found["last"])),
    )


def cross_domain(smoke: bool) -> Problem:
    """Return few-shot learning on an unseen domain."""
    options: dict[str, Any] = {}
    if smoke:
        options = {"iterations": 1, "image_size": 16, "pretrain_epochs": 1}
        options |= {"episodes": 2, "ways": 2, "shots": 1, "queries": 1}
    settings = CrossDomainSettings(device="cpu", **options)
    size = settings.image_size or usual_image_size(settings.backbone, None)
    # All runs share the domains, so that each image is drawn once.
    domains = built_in_domains(size, images_per_class=4 if smoke else 30)
    made: list[Path] = []  # folders whose pre-trained encoders are used again

    def run(chosen: Any, out: Path) -> list[dict[str, Any]]:
        others = [folder for folder in made if folder.exists()]
        made.append(out)
        quiet = Console(quiet=True)
        return CrossDomainExperiment(chosen, out, quiet, others, domains).run().runs

    methods = {NONE: "none", PAPER: "lft-evograd", GUIDED: "lft-guided"}
    methods |= {EXACT: "lft-exact", FIXED: "ft"}
    accuracy = _of_experiment(settings, run, lambda found: found["accuracy"]["mean"])
    name = "cross-domain"
    return Problem(name, methods, settings.iterations, "accuracy", True, accuracy)


def rotation(smoke: bool) -> Problem:
    """Return the paper's problem of turned digits."""
    settings = RotationSettings(**({"iterations": 2} if smoke else {}))

    def run(chosen: Any, out: Path) -> list[dict[str, Any]]:
        return RotationExperiment(chosen, out, Console(quiet=True)).run().runs

    # The command's "evograd" is Algorithm 1.
    methods = {NONE: "none", PAPER: "evograd", GUIDED: "guided", EXACT: "exact"}
    accuracy = _of_experiment(settings, run, lambda found: float(found["accuracy"]))
    return Problem(
        "rotation", methods, settings.iterations, "test accuracy", True, accuracy
    )


def _of_experiment(
    settings: RunSettings,
    run: Callable[[Any, Path], list[dict[str, Any]]],
    quality: Callable[[dict[str, Any]], float],
) -> Callable[[Mapping[str, int], Sequence[int], Path], Trainings]:
    """Return the function ``train`` of a problem that is an experiment."""

    def train(
        iterations: Mapping[str, int], seeds: Sequence[int], folder: Path
    ) -> Trainings:
        alike: dict[int, list[str]] = defaultdict(list)
        for method, count in iterations.items():
            alike[count].append(method)
        found: Trainings = {method: [] for method in iterations}
        for count, methods in alike.items():
            chosen: Any = settings
            chosen = dataclasses.replace(
                chosen,
                methods=tuple(methods),
                iterations=count,
                seed=seeds[0],
                seeds=len(seeds),
            )
            for own in run(chosen, folder / f"{count}-{methods[0]}"):
                seconds = float(own["seconds_per_iteration"])
                found[own["method"]].append(Training(quality(own), seconds))
        return found

    return train


def gallery(problem: GalleryProblem) -> Callable[[bool], Problem]:
    """Return a function that makes a problem from one of ``examples/gallery``."""

    def train(
        iterations: Mapping[str, int], seeds: Sequence[int], folder: Path
    ) -> Trainings:
        def one(method: str, seed: int) -> Training:
            run = problem.train(method, seed, iterations[method])
            return Training(run.quality, run.seconds_per_iteration)

        # Seed by seed, so that a slower hour of the machine meets all methods.
        rows = [{m: one(m, seed) for m in iterations} for seed in seeds]
        return {method: [row[method] for row in rows] for method in iterations}

    def make(smoke: bool) -> Problem:
        return Problem(
            problem.name,
            _GALLERY_METHODS,
            2 if smoke else problem.iterations,
            problem.quality_name,
            problem.higher_is_better,
            train,
        )

    return make


PROBLEMS: dict[str, Callable[[bool], Problem]] = {
    "sample weights": sample_weights,
    "weight net": weight_net,
    "cross-domain": cross_domain,
    "rotation": rotation,
    **{
        module.PROBLEM.name: gallery(module.PROBLEM)
        for module in (
            *(loss_weights, weight_decay, class_weights),
            augmentation_strength,
        )
    },
}
