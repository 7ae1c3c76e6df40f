"""Tasks, a network and a trainer for Lightning, where spawned processes can import."""

import random
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from learn2learn.utils.lightning import EpisodicBatcher
from torch import Tensor, nn

from l2l_evograd.lightning import LightningEvoGrad

SIZES = {
    "train_ways": 3,
    "train_shots": 2,
    "train_queries": 3,
    "test_ways": 3,
    "test_shots": 2,
    "test_queries": 3,
}
WAYS, EACH, FEATURES = 3, 5, 4


def make_task(seed: int) -> list[Tensor]:
    """Three clouds of points, one for each class."""
    generator = torch.Generator().manual_seed(seed)
    options: Any = {"generator": generator, "dtype": torch.float64}
    centres = torch.randn(WAYS, 1, FEATURES, **options)
    points = centres + 0.7 * torch.randn(WAYS, EACH, FEATURES, **options)
    return [points.flatten(0, 1), torch.arange(WAYS).repeat_interleave(EACH)]


class Tasks:
    """Drawn as learn2learn draws its own: from Python's global random state."""

    def sample(self) -> list[Tensor]:
        return make_task(random.getrandbits(40))


class Listed:
    """Tasks of given seeds, for each process its own."""

    def __init__(self, seeds: list[list[int]]) -> None:
        self.seeds = seeds
        self.drawn = 0

    def sample(self) -> list[Tensor]:
        group = torch.distributed
        rank = group.get_rank() if group.is_initialized() else 0
        mine = self.seeds[rank]
        self.drawn += 1
        return make_task(mine[(self.drawn - 1) % len(mine)])


def make_data(length: int = 4) -> EpisodicBatcher:
    return EpisodicBatcher(Tasks(), Tasks(), Tasks(), epoch_length=length)


def make_net(dropout: float = 0.0) -> nn.Sequential:
    """A network in double precision; no bias that BatchNorm would cancel."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Linear(FEATURES, 8, bias=False),
            nn.BatchNorm1d(8),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(8, WAYS),
        ).double()


def make_trainer(**options: Any) -> pl.Trainer:
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }
    return pl.Trainer(**{**quiet, **options})


class Weighted(LightningEvoGrad):
    """The inner loss weighs the classes; the outer loss does not."""

    def __init__(self, weights: nn.Module, **options: Any) -> None:
        super().__init__(make_net(), hyperparameters=weights, **SIZES, **options)
        self.weights = weights

    def inner_loss(self, learner: Any, data: Tensor, labels: Tensor) -> Tensor:
        losses = nn.functional.cross_entropy(learner(data), labels, reduction="none")
        return (
            losses * self.weights(nn.functional.one_hot(labels, WAYS).double())
        ).mean()


class ClassWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(WAYS, dtype=torch.float64))

    def forward(self, one_hot: Tensor) -> Tensor:
        return 2 * one_hot @ torch.sigmoid(self.logits)


def make_module(method: Any = LightningEvoGrad, **options: Any) -> Any:
    dropout = options.pop("dropout", 0.0)
    settings = {"lr": 0.02, "adaptation_steps": 2, **SIZES, **options}
    return method(make_net(dropout), **settings)


def fit(module: Any, data: Any = None, seed: int = 0, **options: Any) -> pl.Trainer:
    """Fit from one random state; return the trainer."""
    random.seed(seed)
    torch.manual_seed(seed)
    path = options.pop("ckpt_path", None)
    trainer = make_trainer(**{"max_epochs": 3, **options})
    trainer.fit(module, datamodule=data or make_data(), ckpt_path=path)
    return trainer


def assert_same(module: nn.Module, other: nn.Module) -> None:
    """Compare weights and buffers bit for bit."""
    values, expected = module.state_dict(), other.state_dict()
    assert list(values) == list(expected)
    for name, value in values.items():
        assert torch.equal(value, expected[name]), name


class Gradients(pl.Callback):
    """Keeps the gradients that the optimizer is given, in memory or a folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.seen: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Any
    ) -> None:
        gradients = {name: p.grad.clone() for name, p in module.named_parameters()}
        self.seen.append(gradients)
        if self.folder is not None:
            name = f"{trainer.world_size}-{trainer.global_step}-{trainer.global_rank}"
            torch.save(gradients, self.folder / f"{name}.pt")
