"""Domains and settings small enough for a test to train on."""

from pathlib import Path

import torch
from consoles import silent_console
from torch import Tensor

from l2l_evograd.fewshot.domains import SPLITS, Dataset, Domain
from l2l_evograd.fewshot.experiment import Experiment
from l2l_evograd.fewshot.settings import CrossDomainSettings

SIDE = 16


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
        "ways": 2,
        "shots": 1,
        "queries": 2,
        "image_size": SIDE,
        "iterations": 5,
        "pretrain_epochs": 2,
        "episodes": 6,
        "save_every": 2,
        "device": "cpu",
        **changes,
    }
    return CrossDomainSettings(**values)  # type: ignore[arg-type]


def tiny_experiment(out: Path, **changes: object) -> Experiment:
    domains = tiny_domains()
    settings = tiny_settings(**changes).resolved(list(domains))
    return Experiment(settings, domains, out, silent_console())
