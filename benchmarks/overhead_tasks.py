"""Tasks with small networks, for which the overhead of a library is large."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from l2l_evograd.experiments.from_learn2learn import l2l

SIDE = 28  # OmniglotCNN takes images of this side only


@dataclass(frozen=True)
class Network:
    """A network and its task.

    Attributes:
        name: name for tables.
        kind: "mlp": a perceptron on points of a sine; "omniglot": learn2learn's
            OmniglotCNN on random images, each in a class of its own.
        hidden: units or channels of a layer.
        samples: number of samples of the inner loss, and of the outer loss.
        lr: learning rate of the inner steps.
    """

    name: str
    kind: str
    hidden: int
    samples: int
    lr: float


class Batch(NamedTuple):
    """Inputs and targets."""

    inputs: Tensor
    targets: Tensor


@dataclass
class Task:
    """A network with the data of its inner and outer loss.

    Attributes:
        model: the network.
        criterion: loss of outputs and targets, with ``reduction`` as in torch.
        support: data of the inner loss.
        query: data of the outer loss.
        weights: λ, one weight for each sample of the inner loss.
        lr: learning rate of the inner steps.
    """

    model: nn.Module
    criterion: Callable[..., Tensor]
    support: Batch
    query: Batch
    weights: Tensor
    lr: float

    def inner(self, model: Callable[[Tensor], Any]) -> Tensor:
        """Return the inner loss without λ."""
        return self.criterion(model(self.support.inputs), self.support.targets)

    def weighted(self, model: Callable[[Tensor], Any], weights: Tensor) -> Tensor:
        """Return the inner loss with λ."""
        outputs = model(self.support.inputs)
        losses = self.criterion(outputs, self.support.targets, reduction="none")
        return (weights * losses.flatten()).mean()

    def outer(self, model: Callable[[Tensor], Any]) -> Tensor:
        """Return the outer loss."""
        return self.criterion(model(self.query.inputs), self.query.targets)

    def at(self, params: Mapping[str, Tensor]) -> Callable[[Tensor], Any]:
        """Return the model as a function that uses other parameters."""
        return partial(functional_call, self.model, dict(params))


def make_network(network: Network) -> tuple[nn.Module, Callable[..., Tensor]]:
    """Return a new network with weights from torch's random state, and its loss."""
    width = network.hidden
    if network.kind == "mlp":
        layers = [nn.Linear(1, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(width, 1)), F.mse_loss
    return l2l.vision.models.OmniglotCNN(network.samples, width), F.cross_entropy


def make_task(network: Network, dtype: torch.dtype) -> Task:
    """Return the task; it is always the same, up to rounding to ``dtype``."""
    torch.manual_seed(0)
    samples = network.samples
    weights = 0.5 + torch.rand(samples)
    model, criterion = make_network(network)
    if network.kind == "mlp":
        points = (10 * torch.rand(2, samples, 1) - 5).to(dtype)
        support, query = (Batch(x, 2 * torch.sin(x + 1)) for x in points)
    else:
        images = torch.randn(2, samples, 1, SIDE, SIDE).to(dtype)
        support, query = (Batch(x, torch.arange(samples)) for x in images)
    weights = weights.to(dtype).requires_grad_()
    return Task(model.to(dtype), criterion, support, query, weights, network.lr)
