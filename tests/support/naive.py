"""The paper's Algorithm 1, transcribed line by line and differentiated by autograd.

Source: Bohdal, Yang, Hospedales, NeurIPS 2021, Algorithm 1. Nothing here shares code
with the package.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

InnerLoss = Callable[[list[Tensor], Tensor], Tensor]
OuterLoss = Callable[[list[Tensor]], Tensor]


def algorithm_one(
    inner: InnerLoss,
    outer: OuterLoss,
    theta: Sequence[Tensor],
    lam: Tensor,
    noise: Sequence[Sequence[Tensor]],
    temperature: float,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Return dL/dλ, dL/dθ through all terms, and θ*."""
    theta = [t.detach().requires_grad_() for t in theta]
    lam = lam.detach().requires_grad_()
    candidates = [[t + e for t, e in zip(theta, eps, strict=True)] for eps in noise]
    losses = torch.stack([inner(candidate, lam) for candidate in candidates])
    weights = torch.softmax(-losses / temperature, dim=0)
    merged = [
        sum(w * c for w, c in zip(weights, column, strict=True))
        for column in zip(*candidates, strict=True)
    ]
    grads = torch.autograd.grad(outer(merged), [lam, *theta], allow_unused=True)
    first = torch.zeros_like(lam) if grads[0] is None else grads[0]
    return first, list(grads[1:]), [m.detach() for m in merged]
