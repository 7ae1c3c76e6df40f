"""Few-shot problems and settings small enough for a test to train on."""

from pathlib import Path

import torch
from consoles import silent_console

from l2l_evograd.experiments.fewshot.algorithm import Algorithm, Lesson
from l2l_evograd.experiments.fewshot.experiment import FewShotExperiment
from l2l_evograd.experiments.fewshot.images import ClassImages, Problem
from l2l_evograd.experiments.fewshot.making import make_algorithm
from l2l_evograd.experiments.fewshot.methods import METHODS
from l2l_evograd.experiments.fewshot.network import FewShotNet
from l2l_evograd.experiments.fewshot.settings import FewShotSettings
from l2l_evograd.seeds import seeded

SIDE = 16
CHANNELS = 2


def tiny_split(name: str, classes: int = 5, each: int = 6) -> ClassImages:
    """Classes are patterns under noise: to be learned, but not at once."""
    generator = torch.Generator().manual_seed(len(name))
    size = (CHANNELS, SIDE, SIDE)
    patterns = torch.randint(80, 176, (classes, 1, *size), generator=generator)
    noise = torch.randint(-60, 60, (classes, each, *size), generator=generator)
    images = (patterns + noise).clamp(0, 255).to(torch.uint8).flatten(0, 1)
    labels = [label for label in range(classes) for _ in range(each)]
    names = [f"class {label}" for label in range(classes)]
    return ClassImages(name, images, labels, names)


def tiny_problem() -> Problem:
    splits = (tiny_split(f"patterns/{s}") for s in ("train", "validation", "test"))
    return Problem("patterns", *splits)


def tiny_settings(**changes: object) -> FewShotSettings:
    values: dict[str, object] = {
        "methods": ("maml", "reptile"),
        "seeds": 1,
        "device": "cpu",
        "ways": 3,
        "shots": 3,
        "queries": 3,
        "test_queries": 3,
        "train_shots": 4,
        "batch_size": 12,
        "steps": 2,
        "reptile_steps": 2,
        "test_steps": 3,
        "lr": 0.1,
        "reptile_lr": 0.1,
        "meta_batch": 2,
        "hidden": 4,
        "gradients": 1,
        "tasks": 3,
        "validation_tasks": 2,
        **changes,
    }
    return FewShotSettings(**values)  # type: ignore[arg-type]


def tiny_experiment(out: Path, **changes: object) -> FewShotExperiment:
    settings = tiny_settings(**changes)
    return FewShotExperiment(settings, out, silent_console(), tiny_problem())


def tiny_network(ways: int = 3) -> FewShotNet:
    with seeded(0):
        return FewShotNet(ways, CHANNELS, SIDE, 4)


def tiny_algorithm(method: str, **changes: object) -> Algorithm:
    settings = tiny_settings(**changes)
    return make_algorithm(METHODS[method], tiny_network(), settings)


def images(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, CHANNELS, SIDE, SIDE, generator=generator)
    return drawn, torch.arange(count) % 3


def lesson(
    method: str, support: int = 3, query: int = 7, batch: int = 4, steps: int = 3
) -> Lesson:
    if METHODS[method].family == "reptile":
        return Lesson([images(batch, step) for step in range(steps)])
    return Lesson([images(support, 10)] * steps, images(query, 11))
