"""Meta-Weight-Net: the weight of a sample as a learned function of its loss."""

import torch
from torch import Tensor, nn


class MetaWeightNet(nn.Module):
    """V: loss of a sample -> its weight between 0 and 1.

    V(ℓ) = sigmoid(b₂ + w₂·relu(b₁ + w₁ ℓ)), with ℓ detached: the weight of a sample
    changes with λ = (w₁, b₁, w₂, b₂) and not with the model's weights.

    Args:
        hidden: units of the hidden layer.

    Raises:
        ValueError: for less than one.

    Source: Shu et al., "Meta-Weight-Net", NeurIPS 2019, section 2.
    """

    def __init__(self, hidden: int = 100) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"expected at least one hidden unit, got {hidden}")
        self.first = nn.Linear(1, hidden)
        self.second = nn.Linear(hidden, 1)

    def forward(self, losses: Tensor) -> Tensor:
        """Return the weights of samples, shape (N,), from their losses, shape (N,)."""
        # Half precision would make steps of 1/256 in the weights.
        with torch.autocast(losses.device.type, enabled=False):
            column = losses.detach().to(self.first.weight.dtype).unsqueeze(-1)
            hidden = torch.relu(self.first(column))
            return torch.sigmoid(self.second(hidden)).squeeze(-1)


def weighted_loss(losses: Tensor, weights: Tensor) -> Tensor:
    """Return Σ_i w_i ℓ_i / Σ_i w_i, a scalar tensor.

    Args:
        losses: ℓ, shape (N,).
        weights: w, shape (N,).

    Raises:
        ValueError: for other shapes, or weights whose sum is 0 or no number.
    """
    if losses.ndim != 1 or losses.shape != weights.shape or not len(losses):
        raise ValueError(
            f"expected one loss and one weight for each sample, got losses of shape "
            f"{tuple(losses.shape)} and weights of shape {tuple(weights.shape)}; "
            f"compute the loss with reduction='none'"
        )
    total = weights.sum()
    value = float(total.detach())
    if value == 0 or value != value:
        raise ValueError(
            f"the weights of {len(weights)} samples add up to {value}, so that their "
            f"loss cannot be divided by it; lower the learning rate of the weight net, "
            f"or start it from other values"
        )
    # Divided first, so that λ enters the loss by one tensor: a forward difference then
    # knows its derivative from the step itself.
    return (weights / total * losses).sum()
