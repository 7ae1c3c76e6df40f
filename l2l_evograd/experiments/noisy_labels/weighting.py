"""Weights of samples: a learned function of their losses, or drawn at random."""

import torch
from torch import Tensor, nn

from l2l_evograd.checks import InputError


class MetaWeightNet(nn.Module):
    """The weight net V. It maps the loss of a sample to a weight between 0 and 1.

    V(ℓ) = sigmoid(b₂ + w₂·relu(b₁ + w₁ ℓ)), with ℓ detached. The weight of a sample is
    differentiable in λ = (w₁, b₁, w₂, b₂), but not in the model's weights.

    Args:
        hidden: number of units of the hidden layer.

    Raises:
        InputError: for less than one hidden unit.

    Source: Shu et al., "Meta-Weight-Net", NeurIPS 2019, section 2.
    """

    def __init__(self, hidden: int = 100) -> None:
        super().__init__()
        if hidden < 1:
            raise InputError(f"expected at least one hidden unit, got {hidden}")
        self.first = nn.Linear(1, hidden)
        self.second = nn.Linear(hidden, 1)

    def forward(self, losses: Tensor) -> Tensor:
        """Return the weights of samples, shape (N,), from their losses, shape (N,)."""
        # Half precision would round the weights to steps of 1/256.
        with torch.autocast(losses.device.type, enabled=False):
            column = losses.detach().to(self.first.weight.dtype).unsqueeze(-1)
            hidden = torch.relu(self.first(column))
            return torch.sigmoid(self.second(hidden)).squeeze(-1)


def weighted_loss(losses: Tensor, weights: Tensor) -> Tensor:
    """Return Σ_i w_i ℓ_i / Σ_i w_i, a scalar tensor; NaN if the weights add up to 0.

    Args:
        losses: ℓ, shape (N,).
        weights: w, shape (N,).

    Raises:
        InputError: for other shapes.
    """
    if losses.ndim != 1 or losses.shape != weights.shape or not len(losses):
        raise InputError(
            f"expected one loss and one weight for each sample, got losses of shape "
            f"{tuple(losses.shape)} and weights of shape {tuple(weights.shape)}; "
            f"compute the loss with reduction='none'"
        )
    # The weights are divided before the product, so that λ enters the loss through one
    # tensor. Guided(scheme="forward") can then reuse a derivative of the inner step.
    # Reading their sum, to refuse 0, would make bilevel_step call the loss twice.
    return (weights / weights.sum() * losses).sum()


def random_weights(count: int, device: torch.device) -> Tensor:
    """Return max(z_i, 0), z_i from N(0, 1), shape (count,): weights that know nothing.

    They are drawn from torch's global generator of the CPU. If none is positive, all
    are 1.

    Source: Ren et al., ICML 2018, section 4: the control "random".
    """
    weights = torch.randn(count).clamp_min(0)
    return (weights if bool(weights.any()) else torch.ones(count)).to(device)
