"""The inner loss ℓ(θ, λ) as a function that can be evaluated at any weights.

:class:`InnerLoss` repeats the calls that led to the loss, with the same random numbers
every time. Its ``inputs`` are the tensors besides the weights that the loss depends on,
such as λ. An evaluation uses detached versions of them, the ``leaves``, so that its
derivatives do not reach into the caller's graph.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from l2l_evograd.replay.autograd_graph import differentiable_again, is_compiled
from l2l_evograd.replay.program import Program


class Unrepeatable(RuntimeError):
    """A loss, computed again at the same weights, gave a different result."""

    def __init__(self, what: str, first: float, again: float) -> None:
        super().__init__(
            f"the inner loss cannot be repeated: computed again at the same weights, "
            f"{what} is {again:.6g} where it was {first:.6g}, or differs in direction. "
            f"Likely causes: a gradient hook on a parameter or an output, a custom "
            f"torch.autograd.Function, a tensor changed in place or through .data, or "
            f"a kernel that sums in another order each time. Remove the cause from the "
            f"inner loss, or use estimator='exact' with memory='graph', which computes "
            f"nothing again; check='never' accepts the difference"
        )


class InnerLoss:
    """ℓ(θ, λ) under common random numbers.

    Args:
        value: ℓ as it was computed, while calls were recorded: a scalar, or one loss
            for each task, shape (tasks,).
        params: θ, the weights that ℓ was computed from.
        hold: whether tensors that are constants to autograd, such as detached tensors,
            keep their recorded values. Autograd does not differentiate through these
            tensors, but a finite difference of the loss would. Algorithm 1 compares
            whole losses, so it does not hold them.

    Attributes:
        inputs: the tensors besides θ that ℓ depends on and that require grad.
        leaves: the tensors that replace the inputs in an evaluation.

    Raises:
        LostHistory: if ℓ cannot be computed again.
        ValueError: if ℓ does not depend on the weights.
    """

    def __init__(self, value: Tensor, params: Sequence[Tensor], hold: bool) -> None:
        self.program = Program(value, params, hold)
        if not self.program.used:
            raise ValueError(
                "the inner loss does not depend on the learner's present weights; "
                "compute it from learner(...) after the last adapt()"
            )
        self.inputs = self.program.inputs
        self.leaves = [tensor.detach().requires_grad_() for tensor in self.inputs]

    def at(self, leaves: Sequence[Tensor]) -> "InnerLoss":
        """Return the same loss with other :attr:`leaves`."""
        new = copy.copy(self)
        new.leaves = list(leaves)
        return new

    def __call__(self, params: Sequence[Tensor], **options: Any) -> Tensor:
        """Return ℓ(params, λ), differentiable in ``params`` and :attr:`leaves`.

        Args:
            params: the weights.
            **options: options of the program's call.
        """
        return self.program(params, self.leaves, **options)

    def gradients(
        self,
        params: Sequence[Tensor],
        wanted: Sequence[int] | None = None,
        params_too: bool = False,
        weights: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return ℓ, ∂ℓ/∂θ (or an empty list) and ∂ℓ/∂λ; the graph is freed.

        Args:
            params: the weights, detached.
            wanted: positions of the inputs to differentiate with respect to; all by
                default.
            params_too: whether ∂ℓ/∂θ is wanted. If not, no graph is built for the part
                that depends on the weights alone.
            weights: one factor for each task's loss, if ℓ has one loss per task.

        Cost: one forward pass, and one backward pass to the wanted tensors.
        """
        positions = range(len(self.leaves)) if wanted is None else wanted
        targets = [self.leaves[position] for position in positions]
        at = list(params)
        if params_too:
            at = [param.detach().requires_grad_() for param in params]
            targets = [*at, *targets]
        with torch.enable_grad():
            value = self(at)
        grads = gradient(value, targets, weights=weights)
        split = len(at) if params_too else 0
        return value.detach(), grads[:split], grads[split:]

    def slopes(self, weights: Sequence[Tensor], **options: Any) -> list[Tensor]:
        """Return ∇_θ ℓ(weights, λ) on a graph, so that it can be differentiated again.

        Args:
            weights: the weights.
            **options: options of the program's call.

        Raises:
            RuntimeError: if the loss uses a function that cannot be differentiated
                twice.
        """
        with torch.enable_grad():
            value = self(weights, **options)
            if not is_compiled(value):
                slopes = gradient(value, weights, create_graph=True)
                if differentiable_again(slopes):
                    return slopes
        raise RuntimeError(
            "the inner loss goes through a function that cannot be differentiated "
            "twice, such as a fused kernel or a compiled function. Use first_order="
            "True and estimator='guided' or 'evograd', which differentiate once, or "
            "another implementation of that function"
        )

    def check(
        self,
        value: Tensor,
        params: Sequence[Tensor],
        slopes: Sequence[Tensor | None],
        inputs: Sequence[tuple[int, Tensor | None]] = (),
    ) -> None:
        """Repeat the loss at the same weights and compare it with the original.

        Args:
            value: the original ℓ.
            params: θ, detached.
            slopes: the original ∂ℓ/∂θ; None for weights that are not compared.
            inputs: positions of inputs, each with the original ∂ℓ/∂input; None if ℓ
                does not depend on that input.

        Raises:
            Unrepeatable: if the loss or one of the derivatives differs.

        Cost: one forward and one backward pass.
        """
        wanted = [position for position, _ in inputs]
        again, found, others = self.gradients(params, wanted, params_too=True)
        check_same("its value", [value.detach()], [again])
        pairs = [(s, f) for s, f in zip(slopes, found, strict=True) if s is not None]
        check_same(_GRADIENT, [s for s, _ in pairs], [f for _, f in pairs])
        known = [
            torch.zeros_like(other) if grad is None else grad
            for (_, grad), other in zip(inputs, others, strict=True)
        ]
        what = "its derivative with respect to the hyperparameters"
        check_same(what, known, others)


_GRADIENT = "its gradient"


def check_same(what: str, first: Sequence[Tensor], again: Sequence[Tensor]) -> None:
    """Compare two lists of tensors, up to rounding in their own precision.

    Args:
        what: the name of the quantity, for the error message.
        first: the original tensors.
        again: the tensors that were computed again.

    Raises:
        Unrepeatable: if the difference is more than rounding explains.

    Cost: one sweep over the tensors, and one synchronisation with the device.
    """
    norms = _norm(first), _norm(again)
    if not (math.isfinite(norms[0]) or math.isfinite(norms[1])):
        return
    distance = _norm([a - b for a, b in zip(first, again, strict=True)])
    coarsest = max((torch.finfo(t.dtype).eps for t in first), default=0.0)
    # Half of the digits must agree. Sums in another order differ by far less.
    if not distance <= coarsest**0.5 * max(norms) + 1e-300:
        raise Unrepeatable(what, norms[0], norms[1])


def digest(tensors: Sequence[Tensor]) -> Tensor:
    """Return a few numbers that distinguish lists of tensors, shape (3 n,).

    For each tensor: its norm, the sum of its entries, and the sum of every other entry.
    Both sums are divided by the square root of the number of entries.
    """
    found = []
    for tensor in tensors:
        flat = tensor.detach().reshape(-1)
        scale = max(1, flat.numel()) ** -0.5
        norm = torch.linalg.vector_norm(flat).to(flat.dtype)
        found += [norm, flat.sum() * scale, flat[::2].sum() * scale]
    device = found[0].device
    return torch.stack([number.to(device) for number in found])


def _norm(tensors: Sequence[Tensor]) -> float:
    norms = [torch.linalg.vector_norm(t.detach()) for t in tensors]
    return math.hypot(*(float(norm) for norm in norms))


def gradient(
    value: Tensor,
    targets: Sequence[Tensor],
    create_graph: bool = False,
    weights: Tensor | None = None,
) -> list[Tensor]:
    """Return ∂value/∂targets, zeros for targets that ``value`` does not use.

    If ``value`` has several entries, they are added up, each times its entry of
    ``weights``.
    """
    if not targets:
        return []
    if not value.requires_grad:
        return [torch.zeros_like(target) for target in targets]
    if weights is None:
        weights = torch.ones_like(value)
    found = torch.autograd.grad(
        value,
        targets,
        weights.to(value.device, value.dtype),
        create_graph=create_graph,
        allow_unused=True,
    )
    return or_zeros(found, targets)


def or_zeros(found: Sequence[Tensor | None], targets: Sequence[Tensor]) -> list[Tensor]:
    """Return gradients of targets, zeros in place of None."""
    return [
        torch.zeros_like(target) if grad is None else grad
        for grad, target in zip(found, targets, strict=True)
    ]
