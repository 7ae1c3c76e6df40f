"""The gradient of an inner loss at one step, with respect to θ and to λ."""

from collections.abc import Sequence

import torch
from torch import Tensor

from l2l_evograd.checks import InputError


def inner_gradient(
    step: int,
    value: Tensor,
    names: Sequence[str],
    weights: Sequence[Tensor],
    hyperparameters: Sequence[Tensor],
    graph: bool,
    allow_unused: bool,
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Return ∇_θ ℓ, zeros for weights without use, and ∂ℓ/∂λ, None without use.

    Args:
        step: the step, for messages.
        value: ℓ.
        names: the names of θ.
        weights: θ.
        hyperparameters: λ.
        graph: return the gradients on a graph.
        allow_unused: accept weights that ℓ does not use.

    Raises:
        InputError: if ℓ does not use some of the weights, or for sparse gradients.
    """
    found = torch.autograd.grad(
        value, [*weights, *hyperparameters], create_graph=graph, allow_unused=True
    )
    of_weights, direct = found[: len(weights)], found[len(weights) :]
    named = list(zip(names, of_weights, strict=True))
    unused = [name for name, grad in named if grad is None]
    if unused and not allow_unused:
        raise InputError(
            f"the inner loss at step {step} does not use the weights "
            f"{', '.join(unused)}; take them out of params, or pass allow_unused=True "
            f"to give them a gradient of 0"
        )
    sparse = [n for n, g in named if g is not None and g.layout != torch.strided]
    if sparse:
        raise InputError(
            f"expected dense gradients, got sparse ones for {', '.join(sparse)}; make "
            f"the layer with sparse=False"
        )
    slopes = [
        torch.zeros_like(weight) if grad is None else grad
        for grad, weight in zip(of_weights, weights, strict=True)
    ]
    return slopes, list(direct)
