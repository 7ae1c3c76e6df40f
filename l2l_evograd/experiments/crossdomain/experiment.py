"""Leave-one-domain-out cross-domain few-shot learning with several methods.

For each seed, the encoder is pre-trained once. Every method starts from these weights,
meta-trains on the same episodes of the seen domains, and is tested on the same episodes
of the novel classes of the unseen domain. Methods can therefore be compared in pairs.
"""

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import l2l_evograd
from l2l_evograd.data.folders import given_path
from l2l_evograd.experiments import folder
from l2l_evograd.experiments.crossdomain.data.domains import (
    Dataset,
    Domain,
    built_in_domains,
    read_domains,
    usual_image_size,
)
from l2l_evograd.experiments.crossdomain.data.episode_stream import (
    ClassBatches,
    EpisodePairs,
)
from l2l_evograd.experiments.crossdomain.data.episodes import EpisodeSampler
from l2l_evograd.experiments.crossdomain.data.image_cache import ImageCache
from l2l_evograd.experiments.crossdomain.methods import METHODS
from l2l_evograd.experiments.crossdomain.networks.backbones import make_backbone
from l2l_evograd.experiments.crossdomain.networks.heads import FewShotModel, make_head
from l2l_evograd.experiments.crossdomain.report.conclusions import conclusions
from l2l_evograd.experiments.crossdomain.report.features_picture import draw_planes
from l2l_evograd.experiments.crossdomain.report.pca import plane_of, projected_features
from l2l_evograd.experiments.crossdomain.report.published import published
from l2l_evograd.experiments.crossdomain.report.run_report import (
    draw_accuracy,
    draw_episodes,
    results_table,
)
from l2l_evograd.experiments.crossdomain.report.strengths_picture import draw_strengths
from l2l_evograd.experiments.crossdomain.results import CrossDomainResults
from l2l_evograd.experiments.crossdomain.settings import CrossDomainSettings
from l2l_evograd.experiments.crossdomain.training.evaluation import (
    embed,
    episode_accuracies,
    summarise,
)
from l2l_evograd.experiments.crossdomain.training.meta_training import MetaTraining
from l2l_evograd.experiments.crossdomain.training.pretraining import Pretraining
from l2l_evograd.experiments.crossdomain.training.reuse_pretrained import (
    reuse_pretrained,
)
from l2l_evograd.experiments.digests import fingerprint
from l2l_evograd.experiments.experiment import Experiment, say
from l2l_evograd.experiments.memory_format import faster_layout
from l2l_evograd.experiments.methods import Method
from l2l_evograd.experiments.out_of_memory import out_of_memory_advice
from l2l_evograd.experiments.results import RunResults
from l2l_evograd.experiments.training import train
from l2l_evograd.experiments.training_module import TrainingModule
from l2l_evograd.layers import add_feature_transforms
from l2l_evograd.oracle.peak_memory import PeakMemory
from l2l_evograd.seeds import derive_seed, seeded

# Number of episodes for a point of the learning curve. The final accuracy uses all test
# episodes.
CURVE_EPISODES = 100
# Largest number of points of the curve. Each needs a pass over a split of the unseen
# domain.
CURVE_POINTS = 20

# Number of validation episodes of each seen domain.
VALIDATION_EPISODES = 50

# Number of images in a batch of the auxiliary task, as published.
AUXILIARY_BATCH = 16


class CrossDomainExperiment(Experiment[CrossDomainSettings]):
    """The cross-domain experiment.

    Args:
        settings: settings of the run; values of None are replaced by defaults.
        out: folder of the run.
        console: console to print on.
        others: folders of other runs. Their pre-trained encoders are reused if the
            settings of the encoder agree.
        domains: the domains by name; None: the domains that the settings name.

    Raises:
        InputError: if the data cannot be read or is too small for the settings. In
            this case, nothing is written.
    """

    def __init__(
        self,
        settings: CrossDomainSettings,
        out: Path,
        console: Console,
        others: Sequence[Path] = (),
        domains: Mapping[str, Domain] | None = None,
    ) -> None:
        root = None if settings.data is None else given_path(settings.data)
        self.size = settings.image_size or usual_image_size(settings.backbone, root)
        if domains is None and root is None:
            domains = built_in_domains(image_size=self.size)
        elif domains is None and root is not None:
            limit = settings.cache * 2**30 / max(1, settings.workers)
            domains = read_domains(root, self.size, ImageCache(round(limit)))
        self.domains = domains or {}
        settings = settings.resolved(list(self.domains), self.size)
        super().__init__(settings, out, console)
        self.device = torch.device(settings.device)
        self._others = others
        self._validates = False
        # These calls refuse too few classes, too few images and too small images before
        # any training.
        self._samplers()
        self._test_sampler(self._novel)
        model = self._fresh_model(settings.seed)
        if settings.pretrain_epochs:
            self._pretraining(model, settings.seed)

    @property
    def seen(self) -> list[str]:
        """The seen domains, which are used for training."""
        return sorted(name for name in self.domains if name != self.settings.unseen)

    def prepare_validation(self) -> None:
        """Let :meth:`one` compute the validation loss, on new classes of seen domains.

        It usually does not, because that takes a pass over their validation split.

        Raises:
            InputError: for too few validation classes or images.
        """
        for name in self.seen:
            self._test_sampler(self.domains[name].splits["val"])
        self._validates = True

    def announce(self) -> None:
        """Print what the run is going to do."""
        settings = self.settings
        source = "built-in glyphs" if settings.data is None else settings.data
        for line in (
            f"Cross-domain few-shot learning, {source}, {self.size} px: train on "
            f"{', '.join(self.seen)}; test on {settings.unseen}",
            f"{settings.ways}-way {settings.shots}-shot, {settings.head} on "
            f"{settings.backbone}, {settings.iterations} meta-iterations on "
            f"{settings.device}; results in {self.out}",
        ):
            say(self.console, line)

    def fill_folder(self) -> None:
        """Copy pre-trained encoders from other runs."""
        reuse_pretrained(self.settings, self.out, self._others)

    def data(self) -> Sequence[Any]:
        """Return a description of the images that the run uses."""
        used = [self._original(name) for name in self.seen]
        return [part for split in [*used, self._novel] for part in split.description()]

    def results(self) -> RunResults:
        """Return the results that are in the folder so far."""
        roles = {
            "unseen": self.settings.unseen,
            "base": self.settings.base,
            "seen": self.seen,
        }
        about = {"domains": roles, "data": {"fingerprint": self.fingerprint}}
        return CrossDomainResults(self.out, self.settings, about)

    def start(self, seed: int) -> FewShotModel:
        """Return the network from which every method starts, on the CPU."""
        model, settings = self._fresh_model(seed), self.settings
        if settings.pretrain_epochs == 0:
            return model
        model.to(memory_format=faster_layout(None, self.device))
        module = self._pretraining(model, seed)
        self.say(
            seed,
            f"pre-training on {settings.base}: {len(set(self._base.labels))} classes, "
            f"{len(self._base)} images, {settings.pretrain_epochs} epochs",
        )
        self._train(
            module,
            name=f"{seed}-pretrain",
            identity=self._encoder_identity(seed),
        )
        last = fmean(module.correct[-module.block :])
        self.say(seed, f"pre-training ends with a training accuracy of {last:.1%}")
        return model.cpu()

    def one(self, seed: int, method: str, start: FewShotModel) -> dict[str, Any]:
        """Meta-train and test one method, and return its results."""
        settings, model = self.settings, copy.deepcopy(start)
        how = METHODS[method]
        if how.uses_lambda:
            add_feature_transforms(
                model.backbone, settings.start_scale, settings.start_shift
            )
        model.to(memory_format=faster_layout(how.estimator, self.device))
        module = self._meta_training(seed, how, model)

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

        self.say(seed, f"meta-training {method}: {how.summary}")
        with PeakMemory(self.device) as peak:
            self._train(
                module,
                name=f"{seed}-{method}",
                identity=self.identity(
                    seed, method=method, **{"seen domains": self.seen}
                ),
                after_block=point,
            )
        model.to(self.device)  # Lightning has moved the model to the CPU
        accuracies = self._test(seed, model, settings.episodes)
        accuracy = summarise(accuracies)
        self.say(
            seed,
            f"{method} on {settings.unseen}: "
            f"{accuracy.mean:.2%} ± {accuracy.interval:.2%}",
        )
        movement = module.movement()
        return {
            "seed": seed,
            "method": method,
            "accuracy": accuracy._asdict(),
            "seconds_per_iteration": median(module.seconds),
            "peak_memory_bytes": peak.bytes,
            "movement": movement,
            "movement_mean": fmean(movement.values()) if movement else None,
            "strengths": module.strengths if how.uses_lambda else [],
            "features": projected_features(
                model, self.domains, settings.unseen, self.device
            ),
            "curve": module.curve,
            "accuracies": accuracies,
            "validation_loss": self._validation_loss(seed, model)
            if self._validates
            else None,
        }

    def draw(self, results: RunResults) -> None:
        """Draw the pictures of accuracies, episodes, strengths and features."""
        settings, out = self.settings, self.out
        title = (
            f"{settings.ways}-way {settings.shots}-shot on {settings.unseen!r}, "
            f"{settings.head}, {settings.backbone}"
        )
        rows = results.summary()
        draw_accuracy(rows, title, settings.ways, out / folder.ACCURACY)
        draw_episodes(
            self.domains,
            settings.unseen,
            (settings.ways, settings.shots),
            settings.seed,
            out / folder.EPISODES,
        )
        draw_strengths(results.runs, out / folder.STRENGTHS)
        planes = {
            run["method"]: plane_of(run["features"])
            for run in results.runs
            if run["seed"] == settings.seed and run["features"]
        }
        if planes:
            draw_planes(planes, settings.unseen, out / folder.FEATURES)

    def table(self, rows: Sequence[Mapping[str, Any]]) -> Table:
        """Return the summary as a table, with published accuracies for comparison."""
        settings = self.settings
        known = published(
            settings.head,
            settings.backbone,
            settings.ways,
            settings.shots,
            settings.unseen,
        )
        return results_table(rows, settings.unseen, known)

    def conclusions(self, results: RunResults) -> Sequence[str]:
        """Return what the results show in words, and how far λ moved."""
        return conclusions(results.runs, self.settings.methods)

    @property
    def _novel(self) -> Dataset:
        return self.domains[self.settings.unseen].splits["novel"]

    @cached_property
    def _base(self) -> Dataset:
        """The data set for pre-training, augmented if the settings ask for it."""
        return self._for_training(self.settings.base or "")

    def _original(self, name: str) -> Dataset:
        return self.domains[name].splits["base"]

    def _for_training(self, name: str) -> Dataset:
        dataset = self._original(name)
        return dataset.augmented() if self.settings.augment else dataset

    def _samplers(self) -> dict[str, EpisodeSampler]:
        """Return a sampler of training episodes for each seen domain."""
        settings = self.settings
        return {
            name: EpisodeSampler(
                self._for_training(name),
                settings.ways,
                settings.shots,
                settings.queries,
            )
            for name in self.seen
        }

    def _test_sampler(self, dataset: Any) -> EpisodeSampler:
        settings = self.settings
        queries = settings.test_queries or settings.queries
        return EpisodeSampler(dataset, settings.ways, settings.shots, queries)

    def _encoder_identity(self, seed: int) -> dict[str, Any]:
        """Return the pre-training, which runs with other unseen domains may share."""
        settings = self.settings
        values = settings.to_dict()
        return {
            "format": folder.FORMAT,
            "l2l_evograd": l2l_evograd.__version__,
            "data": fingerprint(*self._original(settings.base or "").description()),
            **{name: values[name] for name in settings.marked("encoder")},
            "seed": seed,
        }

    def _fresh_model(self, seed: int) -> FewShotModel:
        with seeded(derive_seed(seed, "weights")):
            backbone = make_backbone(self.settings.backbone, self.size, False)
            head = make_head(self.settings.head, backbone, self.settings.ways)
            return FewShotModel(backbone, head)

    def _pretraining(self, model: FewShotModel, seed: int) -> Pretraining:
        settings = self.settings
        return Pretraining(
            model.backbone,
            self._base,
            settings.lr,
            seed,
            epochs=settings.pretrain_epochs,
            batch_size=settings.pretrain_batch,
            classifier=settings.pretrain_classifier or "linear",
            classes=settings.pretrain_classes,
            precision=settings.precision,
            workers=settings.workers,
        )

    def _meta_training(
        self, seed: int, method: Method, model: FewShotModel
    ) -> MetaTraining:
        settings, batches = self.settings, None
        if settings.auxiliary:
            batches = ClassBatches(self._base, AUXILIARY_BATCH, seed)
        return MetaTraining(
            model,
            method,
            EpisodePairs(self._samplers(), seed, settings.domain_block),
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

    def _train(self, module: TrainingModule, **options: Any) -> None:
        settings = self.settings
        largest = max(METHODS[name].candidates for name in settings.methods)
        with out_of_memory_advice(
            f"{settings.backbone} at {settings.image_size} px, episodes of "
            f"{settings.ways} ways, {settings.shots} shots and {settings.queries} "
            f"queries, K = {largest} candidates one at a time; lower --image-size, "
            f"--queries or --pretrain-batch, use --precision bf16 or a smaller "
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

    def _test(self, seed: int, model: FewShotModel, episodes: int) -> list[float]:
        seeds = [derive_seed(seed, "test", number) for number in range(episodes)]
        return self._accuracies(model, self._novel, seeds)

    def _validation_loss(self, seed: int, model: FewShotModel) -> float:
        """Return the share of queries that get a wrong class, over the seen domains."""
        found: list[float] = []
        for name in self.seen:
            numbers = range(VALIDATION_EPISODES)
            seeds = [derive_seed(seed, "validation", name, n) for n in numbers]
            found += self._accuracies(model, self.domains[name].splits["val"], seeds)
        return 1 - fmean(found)

    def _accuracies(
        self, model: FewShotModel, dataset: Dataset, seeds: Sequence[int]
    ) -> list[float]:
        device = next(model.parameters()).device
        features = embed(model, dataset, device, workers=self.settings.workers)
        sampler = self._test_sampler(features)
        return episode_accuracies(model, sampler, seeds, device)


def _is_point(done: int, iterations: int, block: int) -> bool:
    """Return whether the curve has a point here.

    Points are at both ends and at even distances between them.
    """
    if done in (0, iterations):
        return True
    return (
        done * CURVE_POINTS // iterations > (done - block) * CURVE_POINTS // iterations
    )
