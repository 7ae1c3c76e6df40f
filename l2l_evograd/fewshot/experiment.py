"""Leave-one-domain-out cross-domain few-shot learning, several methods side by side.

For each seed the encoder is pre-trained once. Every method starts from these weights,
meta-trains on the seen domains with the same episodes, and is tested on the same
episodes of the unseen domain's novel classes. So methods can be compared in pairs.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from rich.console import Console

import l2l_evograd
from l2l_evograd.fewshot.backbones import make_backbone
from l2l_evograd.fewshot.domains import Dataset, Domain
from l2l_evograd.fewshot.draws import ClassBatches, EpisodePairs
from l2l_evograd.fewshot.episodes import EpisodeSampler
from l2l_evograd.fewshot.evaluation import embed, episode_accuracies, summarise
from l2l_evograd.fewshot.heads import FewShotModel, make_head
from l2l_evograd.fewshot.lending import take_pretrained
from l2l_evograd.fewshot.metatraining import MetaTraining
from l2l_evograd.fewshot.methods import METHODS, Method
from l2l_evograd.fewshot.pretraining import Pretraining
from l2l_evograd.fewshot.projection import projected_features
from l2l_evograd.fewshot.results import PICTURES, Results
from l2l_evograd.fewshot.settings import CrossDomainSettings
from l2l_evograd.layers import add_feature_transforms
from l2l_evograd.oracle.peak_memory import PeakMemory
from l2l_evograd.runs.command import say_of_seed
from l2l_evograd.runs.exhaustion import enough_memory
from l2l_evograd.runs.folder import make_folder
from l2l_evograd.runs.layout import faster_layout
from l2l_evograd.runs.processes import leads, wait
from l2l_evograd.runs.randomness import derive_seed, seeded
from l2l_evograd.runs.training import train

# Episodes of a point of the learning curve; the figure at the end takes all.
CURVE_EPISODES = 100
# Points of the curve at most, for each takes a pass over a split of the unseen domain.
CURVE_POINTS = 20

# Images of a batch of the auxiliary task, as published.
AUXILIARY_BATCH = 16


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
            dataset = self.domains[name].splits["base"]
            EpisodeSampler(dataset, *self.settings.shape)
        EpisodeSampler(self._novel, *self.settings.test_shape)
        # Too small images show here as well, and too few outputs.
        model = self._fresh_model(self.settings.seed)
        if self.settings.pretrain_epochs:
            self._pretraining(model, self.settings.seed)

    @property
    def seen(self) -> list[str]:
        """The domains that are trained on."""
        return sorted(name for name in self.domains if name != self.settings.unseen)

    @property
    def device(self) -> torch.device:
        """Where to compute."""
        return torch.device(self.settings.device)

    @property
    def _novel(self) -> Dataset:
        return self.domains[self.settings.unseen].splits["novel"]

    @cached_property
    def _base(self) -> Dataset:
        """What is classified, with augmentation where it is asked for."""
        return self._for_training(self.settings.base or "")

    def _for_training(self, name: str) -> Dataset:
        dataset = self.domains[name].splits["base"]
        return dataset.augmented() if self.settings.augment else dataset

    def run(self, resume: bool = False, lenders: Sequence[Path] = ()) -> Results:
        """Train and test what is not finished yet, and return all figures.

        Writes settings, checkpoints, logs and results below ``out`` as it goes.

        Args:
            resume: keep what an earlier process has done; else it is removed.
            lenders: folders of other runs, whose pre-trained encoders are taken where
                they are those that this one would make.
        """
        if leads(self.settings.processes):
            make_folder(self.out, self.settings.to_dict(), PICTURES, resume=resume)
            take_pretrained(self.settings, self.out, lenders)
        wait()
        results = Results(self.out, self.settings, {"domains": self._roles()})
        for seed in self.settings.all_seeds:
            todo = [m for m in self.settings.methods if not results.has(seed, m)]
            if not todo:
                continue
            start = self._pretrained(seed)
            for method in todo:
                results.add(self._one(seed, METHODS[method], copy.deepcopy(start)))
        return results

    def _roles(self) -> dict[str, Any]:
        return {
            "unseen": self.settings.unseen,
            "base": self.settings.base,
            "seen": self.seen,
        }

    def _identity(self, **more: Any) -> dict[str, Any]:
        """Return what a checkpoint belongs to, by names that people know."""
        settings = self.settings
        return {
            "l2l_evograd": l2l_evograd.__version__,
            "backbone": settings.backbone,
            "head": settings.head,
            "image_size": settings.image_size,
            "base domain": settings.base,
            **more,
        }

    def _fresh_model(self, seed: int) -> FewShotModel:
        size = self.settings.image_size
        if size is None:
            raise ValueError("expected settings with an image size; resolve them first")
        with seeded(derive_seed(seed, "weights"), torch.device("cpu")):
            backbone = make_backbone(self.settings.backbone, size, False)
            head = make_head(self.settings.head, backbone, self.settings.ways)
            return FewShotModel(backbone, head)

    def _pretraining(self, model: FewShotModel, seed: int) -> Pretraining:
        settings = self.settings
        return Pretraining(
            model.backbone,
            self._base,
            settings.lr,
            seed,
            batch_size=settings.pretrain_batch,
            classifier=settings.pretrain_classifier or "linear",
            classes=settings.pretrain_classes,
            precision=settings.precision,
            workers=settings.workers,
        )

    def _pretrained(self, seed: int) -> FewShotModel:
        """Return the network every method starts from, on the CPU."""
        model, settings = self._fresh_model(seed), self.settings
        if settings.pretrain_epochs == 0:
            return model
        model.to(memory_format=faster_layout(None, self.device))
        module = self._pretraining(model, seed)
        self._say(
            seed,
            f"pre-training on {settings.base}: {len(set(self._base.labels))} classes, "
            f"{len(self._base)} images, {settings.pretrain_epochs} epochs",
        )
        self._train(
            module,
            name=f"{seed}-pretrain",
            epochs=settings.pretrain_epochs,
            iterations=settings.pretrain_epochs * module.batches,
            identity=self._identity(
                classifier=settings.pretrain_classifier,
                augment=settings.augment,
                batch=settings.pretrain_batch,
                epochs=settings.pretrain_epochs,
            ),
        )
        last = fmean(module.correct[-module.batches :])
        self._say(seed, f"pre-training ends with {last:.1%} of the images right")
        return model.cpu()

    def _train(self, module: Any, **options: Any) -> None:
        settings = self.settings
        largest = max(METHODS[name].candidates for name in settings.methods)
        with enough_memory(
            f"{settings.backbone} at {settings.image_size} px, episodes of "
            f"{settings.ways} ways, {settings.shots} shots and {settings.queries} "
            f"queries, K = {largest} candidates one at a time; lower --image-size, "
            f"--queries or --pretrain-batch, take --precision bf16, a smaller "
            f"--backbone, or leave lft-exact out of --methods"
        ):
            train(
                module,
                out=self.out,
                device=self.device,
                console=self.console,
                devices=settings.devices,
                nodes=settings.nodes,
                **options,
            )

    def _meta_training(
        self, seed: int, method: Method, model: FewShotModel
    ) -> MetaTraining:
        settings = self.settings
        pairs = EpisodePairs(
            {name: self._for_training(name) for name in self.seen},
            settings.shape,
            seed,
            settings.domain_block,
        )
        batches = None
        if settings.auxiliary:
            batches = ClassBatches(self._base, AUXILIARY_BATCH, seed)
        return MetaTraining(
            model,
            method,
            pairs,
            ways=settings.ways,
            lr=settings.lr,
            meta_lr=settings.meta_lr,
            seed=seed,
            iterations=settings.iterations,
            block=settings.save_every,
            accumulate=settings.accumulate,
            auxiliary=batches,
            precision=settings.precision,
            workers=settings.workers,
        )

    def _one(self, seed: int, method: Method, model: FewShotModel) -> dict[str, Any]:
        """Meta-train and test one method and return its figures."""
        settings = self.settings
        if method.transforms:
            add_feature_transforms(model.backbone)
        model.to(memory_format=faster_layout(method.estimator, self.device))
        module = self._meta_training(seed, method, model)

        def point(done: int) -> None:
            if not _is_point(done, settings.iterations, settings.save_every):
                return
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
            self._train(
                module,
                name=f"{seed}-{method.name}",
                epochs=-(-settings.iterations // settings.save_every),
                iterations=settings.iterations,
                identity=self._identity(
                    method=method.name,
                    auxiliary=settings.auxiliary,
                    **{"seen domains": self.seen, "unseen domain": settings.unseen},
                ),
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
            "strengths": module.strengths if method.transforms else [],
            "features": projected_features(
                model, self.domains, settings.unseen, self.device
            ),
            "curve": module.curve,
            "accuracies": accuracies,
        }

    def _test(self, seed: int, model: FewShotModel, episodes: int) -> list[float]:
        device = next(model.parameters()).device
        seeds = [derive_seed(seed, "test", number) for number in range(episodes)]
        features = embed(model, self._novel, device, workers=self.settings.workers)
        shape = self.settings.test_shape
        return episode_accuracies(model, features, shape, seeds, device)

    def _say(self, seed: int, text: str) -> None:
        say_of_seed(self.console, self.settings, seed, text)


def _is_point(done: int, iterations: int, block: int) -> bool:
    """Say whether the curve has a point there: at the ends, and evenly between."""
    if done in (0, iterations):
        return True
    return (
        done * CURVE_POINTS // iterations > (done - block) * CURVE_POINTS // iterations
    )
