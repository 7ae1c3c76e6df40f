"""The inner loss ℓ(θ, λ) as a function that can be evaluated at any weights.

However the user wrote it, estimators and updates see an :class:`InnerLoss`: call it
with weights and it returns the loss under the same random numbers as every other time.
What it depends on besides the weights stands in for λ: ``leaves``, detached twins of
``inputs``, so that differentiating one evaluation stays within that evaluation.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Evaluation = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]


class InnerLoss:
    """ℓ(θ, λ) under common random numbers.

    Args:
        evaluate: ``(weights, leaves) -> scalar``; buffers and random state of the
            caller must be as before afterwards.
        inputs: the tensors λ that it depends on and that require grad.
        leaves: what stands for them in an evaluation; by default detached twins that
            share their memory.
        packed: whether part of what autograd saved for the loss as it was computed is
            in the hands of hooks, such as those of activation checkpoints, which may
            compute it again after the weights have moved.
    """

    def __init__(
        self,
        evaluate: Evaluation,
        inputs: Sequence[Tensor],
        leaves: Sequence[Tensor] | None = None,
        packed: bool = False,
    ) -> None:
        self.packed = packed
        self._evaluate = evaluate
        self.inputs = list(inputs)
        if leaves is None:
            leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        self.leaves = list(leaves)

    def __call__(self, params: Sequence[Tensor]) -> Tensor:
        """Return ℓ(params, λ), differentiable in ``params`` and :attr:`leaves`."""
        return self._evaluate(params, self.leaves)

    def gradients(
        self,
        params: Sequence[Tensor],
        wanted: Sequence[int] | None = None,
        params_too: bool = False,
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return ℓ, ∂ℓ/∂θ (or an empty list) and ∂ℓ/∂λ; the graph is freed.

        Args:
            params: the weights, detached.
            wanted: positions of the inputs to differentiate with respect to; all by
                default.
            params_too: whether ∂ℓ/∂θ is wanted. Without it no graph is built for what
                depends on the weights alone.

        Cost: one forward pass and one backward pass to what is wanted.
        """
        positions = range(len(self.leaves)) if wanted is None else wanted
        targets = [self.leaves[position] for position in positions]
        weights = list(params)
        if params_too:
            weights = [weight.detach().requires_grad_() for weight in params]
            targets = [*weights, *targets]
        with torch.enable_grad():
            value = self(weights)
        grads = gradient(value, targets)
        split = len(weights) if params_too else 0
        return value.detach(), grads[:split], grads[split:]


def gradient(
    value: Tensor, targets: Sequence[Tensor], create_graph: bool = False
) -> list[Tensor]:
    """Return ∂value/∂targets, zeros where nothing is reached."""
    if not targets:
        return []
    if not value.requires_grad:
        return [torch.zeros_like(target) for target in targets]
    found = torch.autograd.grad(
        value, targets, create_graph=create_graph, allow_unused=True
    )
    return [
        torch.zeros_like(target) if grad is None else grad
        for grad, target in zip(found, targets, strict=True)
    ]


def check_differentiable(loss: Tensor) -> Tensor:
    """Return ``loss`` if it is on an autograd graph.

    Raises:
        ValueError: if it is not.
    """
    if not loss.requires_grad:
        raise ValueError(
            "the inner loss does not require grad: expected a loss computed with "
            "gradients on; take torch.no_grad(), torch.inference_mode() and .detach() "
            "away from around it"
        )
    return loss


def check_loss(loss: object, name: str = "the inner loss") -> Tensor:
    """Return ``loss`` if it is a finite scalar tensor; say what is wrong otherwise.

    Raises:
        TypeError: if it is no tensor.
        ValueError: if it is not a scalar, or not finite.
    """
    if not isinstance(loss, Tensor):
        raise TypeError(
            f"expected {name} to be a scalar tensor, got {type(loss).__name__}; "
            f"return the loss itself, not a number taken from it"
        )
    if loss.numel() != 1:
        raise ValueError(
            f"expected {name} to be a scalar, got a tensor of shape "
            f"{tuple(loss.shape)}; reduce it with .mean() or .sum()"
        )
    if not bool(torch.isfinite(loss.detach())):
        raise ValueError(
            f"expected {name} to be finite, got {float(loss.detach())}; lower the "
            f"learning rate or check the data"
        )
    return loss
