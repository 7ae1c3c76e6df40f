"""Domains and settings small enough for a test to train on."""

from collections.abc import Sequence
from pathlib import Path

import torch
from consoles import silent_console
from torch import Tensor

from l2l_evograd.experiments.crossdomain.data.domains import Dataset, Domain
from l2l_evograd.experiments.crossdomain.data.episode_stream import EpisodePairs
from l2l_evograd.experiments.crossdomain.data.episodes import EpisodeSampler
from l2l_evograd.experiments.crossdomain.data.filelists import SPLITS
from l2l_evograd.experiments.crossdomain.experiment import CrossDomainExperiment
from l2l_evograd.experiments.crossdomain.networks.backbones import make_backbone
from l2l_evograd.experiments.crossdomain.networks.heads import FewShotModel, make_head
from l2l_evograd.experiments.crossdomain.settings import CrossDomainSettings
from l2l_evograd.seeds import seeded

SIDE = 16
WAYS, SHOTS, QUERIES = 2, 1, 2


def tiny_dataset(name: str, classes: int = 4, each: int = 6) -> Dataset:
    """Classes are colours under noise: to be learned, but not at once."""
    generator = torch.Generator().manual_seed(len(name))
    colours = torch.randint(100, 156, (classes, 1, 3, 1, 1), generator=generator)
    noise = torch.randint(-90, 90, (classes, each, 3, SIDE, SIDE), generator=generator)
    images = (colours + noise).clamp(0, 255).to(torch.uint8).flatten(0, 1)

    def read(index: int) -> Tensor:
        return images[index]

    labels = [label for label in range(classes) for _ in range(each)]
    return Dataset(name, read, labels, [f"class {i}" for i in range(classes)])


def tiny_domains() -> dict[str, Domain]:
    return {
        name: Domain(name, {split: tiny_dataset(f"{name}/{split}") for split in SPLITS})
        for name in ("print", "sketch", "texture-like")
    }


def tiny_settings(**changes: object) -> CrossDomainSettings:
    values: dict[str, object] = {
        "seeds": 1,
        "unseen": "sketch",
        "ways": WAYS,
        "shots": SHOTS,
        "queries": QUERIES,
        "image_size": SIDE,
        "iterations": 5,
        "pretrain_epochs": 2,
        "episodes": 6,
        "save_every": 2,
        "device": "cpu",
        **changes,
    }
    return CrossDomainSettings(**values)  # type: ignore[arg-type]


def tiny_experiment(
    out: Path, others: Sequence[Path] = (), **changes: object
) -> CrossDomainExperiment:
    settings = tiny_settings(**changes)
    console = silent_console()
    return CrossDomainExperiment(settings, out, console, others, tiny_domains())


def tiny_pairs() -> EpisodePairs:
    samplers = {
        name: EpisodeSampler(domain.splits["base"], WAYS, SHOTS, QUERIES)
        for name, domain in tiny_domains().items()
    }
    return EpisodePairs(samplers, seed=0)


def tiny_model() -> FewShotModel:
    with seeded(1):
        backbone = make_backbone("cnn4", SIDE)
        return FewShotModel(backbone, make_head("protonet", backbone))
