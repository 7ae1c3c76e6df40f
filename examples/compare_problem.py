"""How good are estimates of the hypergradient for weight decay on each layer?

A small network learns from few digits-like samples; λ are the logarithms of the weight
decay of its layers. This file is a problem for the command ``compare``:

    l2l-evograd compare examples/compare_problem.py:problem
    python examples/compare_problem.py
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy


def problem() -> dict[str, Any]:
    """Return a problem by the names of the arguments of l2l_evograd.oracle.compare."""
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))
    decay = torch.full((2,), -3.0, requires_grad=True)  # λ, one for each layer
    centres = 2 * torch.randn(4, 16)
    labels = torch.arange(80) % 4
    images = centres[labels] + torch.randn(80, 16)
    train, validation = slice(0, 20), slice(20, 80)

    def inner_loss(net: nn.Module) -> torch.Tensor:
        loss = cross_entropy(net(images[train]), labels[train])
        layers = (net[0].weight, net[2].weight)
        norms = torch.stack([weight.square().sum() for weight in layers])
        return loss + decay.exp() @ norms

    def outer_loss(net: nn.Module) -> torch.Tensor:
        return cross_entropy(net(images[validation]), labels[validation])

    return {
        "model": model,
        "inner_loss": inner_loss,
        "outer_loss": outer_loss,
        "hyperparameters": [decay],
        "lr": 0.1,
    }


if __name__ == "__main__":
    from l2l_evograd.oracle import compare

    torch.manual_seed(0)
    compare(**problem()).print()
