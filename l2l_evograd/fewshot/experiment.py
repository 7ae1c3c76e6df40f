"""Leave-one-domain-out cross-domain few-shot learning, several methods side by side.

For each seed the encoder is pre-trained once. Every method starts from these weights,
meta-trains on the seen domains with the same episodes, and is tested on the same
episodes of the unseen domain's novel classes. So methods can be compared in pairs.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from rich.console import Console
from torch import nn

from l2l_evograd.fewshot.backbones import make_backbone
from l2l_evograd.fewshot.domains import Domain
from l2l_evograd.fewshot.episodes import EpisodeSampler
from l2l_evograd.fewshot.evaluation import embed, episode_accuracies, summarise
from l2l_evograd.fewshot.heads import FewShotModel, make_head
from l2l_evograd.fewshot.metatraining import EpisodePairs, MetaTraining
from l2l_evograd.fewshot.methods import METHODS, Method
from l2l_evograd.fewshot.pretraining import Pretraining
from l2l_evograd.fewshot.results import PICTURES, Results
from l2l_evograd.fewshot.settings import CrossDomainSettings
from l2l_evograd.layers import add_feature_transforms
from l2l_evograd.memory import PeakMemory
from l2l_evograd.runs.command import say_of_seed
from l2l_evograd.runs.folder import make_folder
from l2l_evograd.runs.randomness import derive_seed, seeded
from l2l_evograd.runs.training import train

# Episodes of a point of the learning curve; the figure at the end takes all.
CURVE_EPISODES = 100


@dataclass(frozen=True)
class Experiment:
    """A checked experiment, ready to run.

    Attributes:
        settings: with nothing left open.
        domains: by name.
        out: folder of the run.
        console: where to say what happens.
    """

    settings: CrossDomainSettings
    domains: Mapping[str, Domain]
    out: Path
    console: Console

    def __post_init__(self) -> None:
        """Try every sampler, so that too few classes or images show before training."""
        for name in self.seen:
            EpisodeSampler(self.domains[name].splits["base"], *self.shape)
        EpisodeSampler(self.domains[self.settings.unseen].splits["novel"], *self.shape)
        # Too small images show here as well.
        self._fresh_model(self.settings.seed)

    @property
    def seen(self) -> list[str]:
        """The domains that are trained on."""
        return sorted(name for name in self.domains if name != self.settings.unseen)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Ways, shots, queries."""
        return self.settings.ways, self.settings.shots, self.settings.queries

    @property
    def device(self) -> torch.device:
        """Where to compute."""
        return torch.device(self.settings.device)

    def run(self, resume: bool = False) -> Results:
        """Train and test what is not finished yet, and return all figures.

        Writes settings, checkpoints, logs and results below ``out`` as it goes.

        Args:
            resume: keep what an earlier process has done; else it is removed.
        """
        make_folder(self.out, self.settings.to_dict(), PICTURES, resume=resume)
        results = Results(self.out, self.settings, {"domains": self._roles()})
        for seed in self.settings.all_seeds:
            todo = [m for m in self.settings.methods if not results.has(seed, m)]
            if not todo:
                continue
            start = self._pretrained(seed)
            pairs = EpisodePairs(
                {name: self.domains[name].splits["base"] for name in self.seen},
                self.shape,
                seed,
            )
            for method in todo:
                results.add(self._one(seed, METHODS[method], start, pairs))
        return results

    def _roles(self) -> dict[str, Any]:
        return {
            "unseen": self.settings.unseen,
            "base": self.settings.base,
            "seen": self.seen,
        }

    def _fresh_model(self, seed: int) -> FewShotModel:
        size = self.settings.image_size
        if size is None:
            raise ValueError("expected settings with an image size; resolve them first")
        with seeded(derive_seed(seed, "weights"), torch.device("cpu")):
            backbone = make_backbone(self.settings.backbone, size, False)
            return FewShotModel(backbone, make_head(self.settings.head, backbone))

    def _pretrained(self, seed: int) -> FewShotModel:
        """Return the network every method starts from, on the CPU."""
        model = self._fresh_model(seed)
        settings = self.settings
        if settings.pretrain_epochs == 0:
            return model
        dataset = self.domains[settings.base or ""].splits["base"]
        module = Pretraining(model.backbone, dataset, settings.lr, seed)
        self._say(
            seed,
            f"pre-training on {settings.base}: {len(set(dataset.labels))} classes, "
            f"{len(dataset)} images, {settings.pretrain_epochs} epochs",
        )
        train(
            module,
            name=f"{seed}-pretrain",
            epochs=settings.pretrain_epochs,
            iterations=settings.pretrain_epochs * module.batches,
            out=self.out,
            device=self.device,
            console=self.console,
        )
        if module.correct:
            last = fmean(module.correct[-module.batches :])
            self._say(seed, f"pre-training ends with {last:.1%} of the images right")
        return model.cpu()

    def _one(
        self, seed: int, method: Method, start: nn.Module, pairs: EpisodePairs
    ) -> dict[str, Any]:
        """Meta-train and test one method and return its figures."""
        settings = self.settings
        model = copy.deepcopy(start)
        if not isinstance(model, FewShotModel):
            raise TypeError(f"expected a FewShotModel, got {type(model).__name__}")
        if method.transforms:
            add_feature_transforms(model.backbone)
        module = MetaTraining(
            model,
            method,
            pairs,
            ways=settings.ways,
            lr=settings.lr,
            meta_lr=settings.meta_lr,
            seed=seed,
            iterations=settings.iterations,
            block=settings.save_every,
        )

        def point(done: int) -> None:
            accuracies = self._test(seed, model, min(CURVE_EPISODES, settings.episodes))
            losses = module.losses[-settings.save_every :]
            module.curve.append(
                {
                    "iteration": done,
                    "accuracy": fmean(accuracies),
                    "loss": fmean(losses) if losses else None,
                }
            )

        self._say(seed, f"meta-training {method.name}: {method.summary}")
        with PeakMemory(self.device) as peak:
            train(
                module,
                name=f"{seed}-{method.name}",
                epochs=-(-settings.iterations // settings.save_every),
                iterations=settings.iterations,
                out=self.out,
                device=self.device,
                console=self.console,
                after_epoch=point,
            )
        model.to(self.device)  # Lightning has put it back on the CPU
        accuracies = self._test(seed, model, settings.episodes)
        accuracy = summarise(accuracies)
        self._say(
            seed,
            f"{method.name} on {settings.unseen}: "
            f"{accuracy.mean:.2%} ± {accuracy.interval:.2%}",
        )
        movement = module.movement()
        return {
            "seed": seed,
            "method": method.name,
            "accuracy": accuracy._asdict(),
            "seconds_per_iteration": median(module.seconds),
            "peak_memory_bytes": peak.bytes,
            "movement": movement,
            "movement_mean": fmean(movement.values()) if movement else None,
            "curve": module.curve,
            "accuracies": accuracies,
        }

    def _test(self, seed: int, model: FewShotModel, episodes: int) -> list[float]:
        device = next(model.parameters()).device
        dataset = self.domains[self.settings.unseen].splits["novel"]
        seeds = [derive_seed(seed, "test", number) for number in range(episodes)]
        features = embed(model, dataset, device)
        return episode_accuracies(model, features, self.shape, seeds, device)

    def _say(self, seed: int, text: str) -> None:
        say_of_seed(self.console, self.settings, seed, text)
