"""A training module that is small enough to be killed and resumed in a test."""

import signal
from pathlib import Path

import torch
from consoles import silent_console
from rich.console import Console
from torch import nn

from l2l_evograd.experiments.training import train
from l2l_evograd.experiments.training_module import TrainingModule, parameters_of
from l2l_evograd.seeds import seeded

CPU = torch.device("cpu")
ITERATIONS, BLOCK = 7, 2


class Regression(TrainingModule):
    """A random problem at every iteration, to be told from another by its numbers."""

    def __init__(
        self,
        stop_at: int | None = None,
        signal_at: int | None = None,
        kind: signal.Signals = signal.SIGINT,
    ):
        super().__init__()
        self.total, self.block = ITERATIONS, BLOCK
        with seeded(0):
            self.layer = nn.Linear(3, 1)
        self.stop_at = stop_at
        self.signal_at = signal_at
        self.kind = kind

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)

    def iterate(self, iteration: int) -> float:
        if iteration == self.stop_at:
            raise RuntimeError("killed")
        if iteration == self.signal_at:
            signal.raise_signal(self.kind)
        (optimizer,) = self.plain_optimizers()
        with seeded(iteration, self.device):
            loss = (self.layer(torch.randn(8, 3)) - torch.randn(8, 1)).square().mean()
        self.step(optimizer, torch.autograd.grad(loss, parameters_of(optimizer)))
        return float(loss.detach())


def run(module: Regression, out: Path, console: Console | None = None, **changes):
    train(
        module,
        name="regression",
        out=out,
        device=CPU,
        console=console or silent_console(),
        **changes,
    )
    return module


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])
