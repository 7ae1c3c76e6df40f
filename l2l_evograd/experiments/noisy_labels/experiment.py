"""The noisy-labels experiment compares several ways to weight noisy samples.

For each seed, all methods start from the same network and weight net. They see the same
batches, with the same wrong labels and the same shifts of the images.
"""

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from l2l_evograd.checks import InputError
from l2l_evograd.experiments import folder
from l2l_evograd.experiments.experiment import Experiment, say
from l2l_evograd.experiments.memory_format import faster_layout
from l2l_evograd.experiments.methods import Method
from l2l_evograd.experiments.noisy_labels.augmentation import ShiftAndMirror
from l2l_evograd.experiments.noisy_labels.evaluation import sample_losses
from l2l_evograd.experiments.noisy_labels.images import ImageSource, LabelledImages
from l2l_evograd.experiments.noisy_labels.methods import METHODS
from l2l_evograd.experiments.noisy_labels.module import NoisyLabelModule
from l2l_evograd.experiments.noisy_labels.networks import make_network
from l2l_evograd.experiments.noisy_labels.pictures import (
    draw_accuracy,
    draw_samples,
    draw_weights,
)
from l2l_evograd.experiments.noisy_labels.report import conclusions, results_table
from l2l_evograd.experiments.noisy_labels.results import CURVE_LOSSES, NoisyLabelResults
from l2l_evograd.experiments.noisy_labels.settings import NoisyLabelSettings
from l2l_evograd.experiments.noisy_labels.sources import read_source
from l2l_evograd.experiments.noisy_labels.split import NoisySplit, draw_split
from l2l_evograd.experiments.noisy_labels.weighting import MetaWeightNet
from l2l_evograd.experiments.results import RunResults, finite_or_none
from l2l_evograd.experiments.training import train
from l2l_evograd.oracle.peak_memory import PeakMemory
from l2l_evograd.seeds import derive_seed, generator_for, seeded

# Number of training samples with clean labels in the picture of weights, and of those
# with wrong labels.
SHOWN_SAMPLES = 500


class Start(NamedTuple):
    """The state that all methods of a seed start from.

    Attributes:
        model: the untrained network.
        split: indices and labels of the training set and the meta set.
        images: training images with the labels of the split.
    """

    model: nn.Module
    split: NoisySplit
    images: LabelledImages


class NoisyLabelExperiment(Experiment[NoisyLabelSettings]):
    """The noisy-label experiment.

    Args:
        settings: settings of the run; values of None are replaced by defaults.
        out: folder of the run.
        console: console to print on.
        source: the images; None: the images that the settings name.

    Raises:
        InputError: if there are too few images for the settings.
    """

    def __init__(
        self,
        settings: NoisyLabelSettings,
        out: Path,
        console: Console,
        source: ImageSource | None = None,
    ) -> None:
        settings = settings.resolved()
        super().__init__(settings, out, console)
        if source is None:
            source = read_source(settings.data, settings.image_size, console)
        self.source = source
        tests = len(source.test)
        if settings.test_images is not None and settings.test_images > tests:
            raise InputError(
                f"expected to test on 1 to {tests} images, got {settings.test_images}"
            )
        # These calls refuse bad input before anything is trained.
        _ = self._about  # draws the split of the first seed
        if settings.warm_up >= self.iterations:
            raise InputError(
                f"expected a warm_up of less than the {self.iterations} iterations of "
                f"a method, got {settings.warm_up}; nothing would be learned"
            )
        make_network(settings.network or "", len(source.classes), settings.width)

    def split(self, seed: int) -> NoisySplit:
        """Return the training set and the meta set of a seed."""
        settings = self.settings
        return draw_split(
            self.source.train.labels,
            len(self.source.classes),
            num_meta=settings.meta_images or 0,
            noise=settings.noise,
            rate=settings.noise_rate,
            seed=seed,
            train_images=settings.train_images,
            imbalance=settings.imbalance,
        )

    def announce(self) -> None:
        """Print what the run is going to do."""
        settings, about = self.settings, self._about
        width = "" if settings.width == 1 else f", width {settings.width}"
        length = (
            f"{settings.epochs} epochs"
            if settings.iterations is None
            else f"{settings.iterations} iterations"
        )
        for line in (
            f"Noisy labels, {self.source.name}, {len(self.source.classes)} classes: "
            f"{about['train']} training images, {about['wrong_labels']} of them "
            f"with a wrong label ({settings.noise} {settings.noise_rate:.0%}), "
            f"{about['meta']} clean meta images, {about['test']} test images",
            f"{settings.network}{width}, {length} on {settings.device}; results in "
            f"{self.out}",
        ):
            say(self.console, line)

    def data(self) -> Sequence[Any]:
        """Return all images with their true labels."""
        train, test = self.source.train, self.source.test
        names = list(self.source.classes)
        return [train.images, train.labels, test.images, test.labels, names]

    def results(self) -> RunResults:
        """Return the results that are in the folder so far."""
        return NoisyLabelResults(self.out, self.settings, {"data": self._about})

    def start(self, seed: int) -> Start:
        """Return the untrained network and the images of a seed."""
        split = self.split(seed)
        images = self.source.train.subset(split.train, split.labels)
        with seeded(derive_seed(seed, "weights")):
            model = make_network(
                self.settings.network or "",
                len(self.source.classes),
                self.settings.width,
                images.statistics(),
            )
        return Start(model, split, images)

    def draw(self, results: RunResults) -> None:
        """Draw the pictures of accuracies, weights and samples."""
        path = self.out / folder.ACCURACY
        draw_accuracy(results, self._per_epoch, self._title, path)
        if self.settings.weighting == "net":
            draw_weights(results, self.out / folder.WEIGHTS)
        draw_samples(results, self.out / folder.SAMPLES)

    def table(self, rows: Sequence[Mapping[str, Any]]) -> Table:
        """Return the summary as a table."""
        return results_table(rows, f"Test accuracy, {self._title}")

    def conclusions(self, results: RunResults) -> Sequence[str]:
        """Return what the results show in words."""
        return conclusions(results)

    @property
    def iterations(self) -> int:
        """Number of iterations of every method."""
        settings = self.settings
        return settings.iterations or self._per_epoch * (settings.epochs or 1)

    @property
    def _per_epoch(self) -> int:
        return max(1, self._about["train"] // self.settings.batch_size)

    @property
    def _title(self) -> str:
        settings = self.settings
        title = f"{Path(self.source.name).name}, {settings.noise} "
        title += f"{settings.noise_rate:.0%}"
        if settings.imbalance != 1:
            title += f", long tail {settings.imbalance:g}"
        return title

    @cached_property
    def _about(self) -> dict[str, Any]:
        """Return a description of the data."""
        split = self.split(self.settings.seed)
        return {
            "name": self.source.name,
            "fingerprint": self.fingerprint,
            "classes": list(self.source.classes),
            "train": len(split.train),
            "wrong_labels": int(split.corrupted.sum()),
            "meta": len(split.meta),
            "test": self.settings.test_images or len(self.source.test),
        }

    @cached_property
    def _test_set(self) -> LabelledImages:
        """Return the test images, which are the same for all seeds."""
        count = self.settings.test_images
        if count is None:
            return self.source.test
        order = torch.randperm(
            len(self.source.test), generator=generator_for(0, "test")
        )
        return self.source.test.subset(order[:count].sort().values)

    def _module(self, method: Method, start: Start, seed: int) -> NoisyLabelModule:
        settings = self.settings
        augment = None
        if not settings.no_augment and (self.source.shift or self.source.mirrored):
            augment = ShiftAndMirror(self.source.shift, self.source.mirrored)
        layout = faster_layout(method.estimator, torch.device(settings.device))
        return NoisyLabelModule(
            copy.deepcopy(start.model).to(memory_format=layout),
            start.images,
            self.source.train.subset(start.split.meta),
            method=method,
            weighting=settings.weighting or "net",
            warm_up=settings.warm_up,
            epochs=settings.epochs or 1,
            iterations=settings.iterations,
            batch_size=settings.batch_size,
            lr=settings.lr or 0.1,
            meta_lr=settings.meta_lr,
            augment=augment,
            test=self._test_set,
            precision=settings.precision,
            seed=seed,
        )

    def one(self, seed: int, method: str, start: Start) -> dict[str, Any]:
        """Train one method and return its results."""
        module = self._module(METHODS[method], start, seed)
        used = module.method.uses_lambda
        net = used and module.weighting == "net"
        device = torch.device(self.settings.device)
        before = _weights(module.weight_net)
        self.say(seed, f"{method}: {module.method.summary}, {module.total} iterations")
        with PeakMemory(device) as peak:
            train(
                module,
                name=f"{seed}-{method}",
                out=self.out,
                device=device,
                console=self.console,
                devices=self.settings.devices,
                identity=self.identity(seed, method=method),
            )
        module.to(device)  # Lightning has moved the module to the CPU
        accuracies = [float(point["accuracy"] or 0.0) for point in module.curve]
        weights = _sample_weights(module, start) if used else None
        samples = None if weights is None else _samples(weights, start, seed)
        norms = module.hypergradients  # none if λ was never learned
        clean = self.source.train.subset(start.split.meta)
        validation = float(sample_losses(module.model, clean).mean())
        self.say(
            seed, f"{method}: best {max(accuracies):.2%}, last {accuracies[-1]:.2%}"
        )
        return {
            "seed": seed,
            "method": method,
            "best": max(accuracies),
            "last": accuracies[-1],
            "validation_loss": finite_or_none(validation),
            "seconds_per_iteration": median(module.seconds),
            "peak_memory_bytes": peak.bytes,
            "hypergradient_norm": median(norms) if norms else None,
            "losses": list(CURVE_LOSSES),
            "weights_before": before if net else None,
            "weights_after": _weights(module.weight_net) if net else None,
            "wrong_labels": float(start.split.corrupted.double().mean()),
            "wrong_share": None if weights is None else _wrong_share(weights, start),
            "samples": samples,
            "curve": module.curve,
        }


@torch.no_grad()
def _weights(net: MetaWeightNet) -> list[float]:
    """Return the weights V at the losses of the picture."""
    device = next(net.parameters()).device
    weights: list[float] = net(torch.tensor(CURVE_LOSSES, device=device)).tolist()
    return weights


@torch.no_grad()
def _sample_weights(module: NoisyLabelModule, start: Start) -> Tensor:
    """Return the weight of every training sample; NaN for one without a weight.

    A weight net weights them by their losses after the training. Weights of samples
    are the last ones that the training gave; with several processes, those that the
    first process gave.
    """
    if module.weighting == "samples":
        return torch.tensor(module.given_weights)
    return module.weight_net.cpu()(sample_losses(module.model, start.images))


def _samples(weights: Tensor, start: Start, seed: int) -> dict[str, list[float]]:
    """Return the weights of some clean and some corrupted training samples."""
    generator, wrong = generator_for(seed, "shown"), start.split.corrupted
    found = {}
    for name, chosen in (("clean", ~wrong), ("corrupted", wrong)):
        own = weights[chosen & ~weights.isnan()]
        order = torch.randperm(len(own), generator=generator)[:SHOWN_SAMPLES]
        found[name] = own[order].tolist()
    return found


def _wrong_share(weights: Tensor, start: Start) -> float | None:
    """Return the fraction of all weight that is on samples with wrong labels."""
    total = float(weights.nansum())
    wrong = float(weights[start.split.corrupted].nansum())
    return wrong / total if total > 0 else None
