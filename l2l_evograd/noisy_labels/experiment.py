"""Several ways to weight noisy samples, side by side.

For each seed all methods start from the same network and weight net and see the same
batches, with the same wrong labels and the same shifts of the images.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from l2l_evograd.noisy_labels.augmentation import ShiftAndMirror
from l2l_evograd.noisy_labels.data import LabelledImages, Source
from l2l_evograd.noisy_labels.evaluation import sample_losses
from l2l_evograd.noisy_labels.methods import METHODS, Method
from l2l_evograd.noisy_labels.module import NoisyLabelModule
from l2l_evograd.noisy_labels.networks import make_network
from l2l_evograd.noisy_labels.results import (
    CURVE_LOSSES,
    PICTURES,
    NoisyLabelResults,
)
from l2l_evograd.noisy_labels.settings import NoisyLabelSettings
from l2l_evograd.noisy_labels.split import NoisySplit, draw_split
from l2l_evograd.noisy_labels.weighting import MetaWeightNet
from l2l_evograd.oracle.peak_memory import PeakMemory
from l2l_evograd.runs.command import say_of_seed
from l2l_evograd.runs.folder import make_folder
from l2l_evograd.runs.layout import faster_layout
from l2l_evograd.runs.processes import leads, wait
from l2l_evograd.runs.randomness import derive_seed, seeded
from l2l_evograd.runs.training import train

# Training samples of the picture of weights, of each kind.
SHOWN_SAMPLES = 500


@dataclass(frozen=True)
class Experiment:
    """A checked experiment, ready to run.

    Attributes:
        settings: with nothing left open.
        source: the images.
        out: folder of the run.
        console: where to say what happens.
    """

    settings: NoisyLabelSettings
    source: Source
    out: Path
    console: Console

    def __post_init__(self) -> None:
        """Try the split and the network, so that bad input shows before training."""
        settings, tests = self.settings, len(self.source.test)
        if settings.test_images is not None and settings.test_images > tests:
            raise ValueError(
                f"expected to test on 1 to {tests} images, got {settings.test_images}"
            )
        self.split(settings.seed)
        make_network(settings.network or "", len(self.source.classes), settings.width)

    def split(self, seed: int) -> NoisySplit:
        """Return a seed's training and meta set."""
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

    def run(self, resume: bool = False) -> NoisyLabelResults:
        """Train and test what is not finished yet, and return all figures.

        Writes settings, checkpoints, logs and results below ``out`` as it goes.

        Args:
            resume: keep what an earlier process has done; else it is removed.
        """
        if leads(self.settings.devices):
            make_folder(self.out, self.settings.to_dict(), PICTURES, resume=resume)
        wait()
        results = NoisyLabelResults(self.out, self.settings, {"data": self._about()})
        test = self._test_set()
        for seed in self.settings.all_seeds:
            todo = [m for m in self.settings.methods if not results.has(seed, m)]
            if not todo:
                continue
            split = self.split(seed)
            images = self.source.train.subset(split.train, split.labels)
            start = self._fresh_model(seed, images)
            for name in todo:
                module = self._module(
                    copy.deepcopy(start), METHODS[name], images, split, test, seed
                )
                results.add(self._one(module, images, split, seed))
        return results

    def _about(self) -> dict[str, Any]:
        """Return what the figures are of."""
        split = self.split(self.settings.seed)
        return {
            "name": self.source.name,
            "classes": list(self.source.classes),
            "train": len(split.train),
            "wrong_labels": int(split.corrupted.sum()),
            "meta": len(split.meta),
            "test": self.settings.test_images or len(self.source.test),
        }

    def _test_set(self) -> LabelledImages:
        """Return the test images, the same ones for all seeds."""
        count = self.settings.test_images
        if count is None:
            return self.source.test
        generator = torch.Generator().manual_seed(derive_seed(0, "test"))
        order = torch.randperm(len(self.source.test), generator=generator)
        return self.source.test.subset(order[:count].sort().values)

    def _fresh_model(self, seed: int, images: LabelledImages) -> nn.Module:
        settings = self.settings
        with seeded(derive_seed(seed, "weights"), torch.device("cpu")):
            return make_network(
                settings.network or "",
                len(self.source.classes),
                settings.width,
                images.statistics(),
            )

    def _module(
        self,
        model: nn.Module,
        method: Method,
        images: LabelledImages,
        split: NoisySplit,
        test: LabelledImages,
        seed: int,
    ) -> NoisyLabelModule:
        settings = self.settings
        layout = faster_layout(method.estimator, torch.device(settings.device))
        return NoisyLabelModule(
            model.to(memory_format=layout),
            images,
            self.source.train.subset(split.meta),
            method=method,
            epochs=settings.epochs or 1,
            iterations=settings.iterations,
            batch_size=settings.batch_size,
            lr=settings.lr,
            meta_lr=settings.meta_lr,
            augment=ShiftAndMirror(self.source.shift, self.source.mirrored),
            test=test,
            precision=settings.precision,
            seed=seed,
        )

    def _one(
        self,
        module: NoisyLabelModule,
        images: LabelledImages,
        split: NoisySplit,
        seed: int,
    ) -> dict[str, Any]:
        """Train one method and return its figures."""
        method = module.method
        device = torch.device(self.settings.device)
        before = _weights(module.weight_net)
        self._say(seed, f"{method.name}: {method.summary}, {module.total} iterations")
        with PeakMemory(device) as peak:
            train(
                module,
                name=f"{seed}-{method.name}",
                epochs=module.blocks,
                iterations=module.total,
                out=self.out,
                device=device,
                console=self.console,
                devices=self.settings.devices,
            )
        module.to(device)  # Lightning has put it back on the CPU
        accuracies = [float(point["accuracy"] or 0.0) for point in module.curve]
        self._say(
            seed,
            f"{method.name}: best {max(accuracies):.2%}, last {accuracies[-1]:.2%}",
        )
        weighted, learned = method.weighted, method.learned
        return {
            "seed": seed,
            "method": method.name,
            "best": max(accuracies),
            "last": accuracies[-1],
            "seconds_per_iteration": median(module.seconds),
            "peak_memory_bytes": peak.bytes,
            "hypergradient_norm": median(module.hypergradients) if learned else None,
            "losses": list(CURVE_LOSSES),
            "weights_before": before if weighted else None,
            "weights_after": _weights(module.weight_net) if weighted else None,
            "samples": _samples(module, images, split, seed) if weighted else None,
            "curve": module.curve,
        }

    def _say(self, seed: int, text: str) -> None:
        say_of_seed(self.console, self.settings, seed, text)


@torch.no_grad()
def _weights(net: MetaWeightNet) -> list[float]:
    """Return V at the losses of the picture."""
    device = next(net.parameters()).device
    weights: list[float] = net(torch.tensor(CURVE_LOSSES, device=device)).tolist()
    return weights


@torch.no_grad()
def _samples(
    module: NoisyLabelModule, images: LabelledImages, split: NoisySplit, seed: int
) -> dict[str, list[float]]:
    """Return the weights of some clean and some corrupted training samples."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "shown"))
    found = {}
    for name, chosen in (("clean", ~split.corrupted), ("corrupted", split.corrupted)):
        places = chosen.nonzero().squeeze(1)
        order = torch.randperm(len(places), generator=generator)[:SHOWN_SAMPLES]
        weights: Tensor = torch.empty(0)
        if len(order):
            losses = sample_losses(module.model, images.subset(places[order]))
            weights = module.weight_net.cpu()(losses)
        found[name] = weights.tolist()
    return found
