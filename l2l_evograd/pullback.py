"""The way back through an inner update: a step on the autograd graph.

An update hands over its new weights and a pullback, from the cotangent v = ∂L/∂θ_new
to the cotangents of θ, of λ and of learned rates. :func:`connected` puts the two on the
caller's graph.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Cotangents(NamedTuple):
    """What a pullback returns.

    Attributes:
        params: θ̄, one tensor for each weight.
        inputs: λ̄, one tensor for each input, None where none was asked for.
        rates: one tensor for each learned rate.
    """

    params: list[Tensor]
    inputs: list[Tensor | None]
    rates: Sequence[Tensor] = ()


class Step(NamedTuple):
    """One inner update, done.

    Attributes:
        params: the new weights, detached.
        pullback: v -> :class:`Cotangents`.
        keeps_params: whether the pullback needs the weights from before the step.
    """

    params: list[Tensor]
    pullback: Callable[[list[Tensor]], Cotangents]
    keeps_params: bool


@dataclass(frozen=True)
class Wanted:
    """Whose cotangents a pullback shall return.

    Attributes:
        hyperparameters: positions of the inputs that the estimator governs.
        others: positions of the inputs that get the exact cotangent.
        curvature: whether θ̄ includes −η ∂D/∂θ, or is v.
    """

    hyperparameters: Sequence[int] = ()
    others: Sequence[int] = ()
    curvature: bool = False

    @property
    def nothing(self) -> bool:
        """Whether the pullback is the identity."""
        return not (self.hyperparameters or self.others or self.curvature)


def connected(
    step: Step,
    params: Sequence[Tensor],
    inputs: Sequence[Tensor],
    rates: Sequence[Tensor] = (),
) -> list[Tensor]:
    """Return the new weights on the autograd graph of θ, λ and the learned rates.

    ``backward()`` through them calls the step's pullback.

    Args:
        step: the update, done at the values of ``params``.
        params: θ as the caller's graph knows it.
        inputs: λ likewise.
        rates: learned rates likewise.
    """
    # Handing the tensors over lets autograd notice if they are changed in place
    # before backward; the identity needs none of them.
    kept = [*params, *inputs] if step.keeps_params else []
    kept += rates
    sources = [*params, *inputs, *rates]
    return list(_Pullback.apply(step.pullback, step.params, len(kept), *kept, *sources))


class _Pullback(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
        pullback, after, kept, *tensors = args
        ctx.pullback = pullback
        ctx.kept = kept
        ctx.shapes = [(t.shape, t.dtype, t.device) for t in after]
        ctx.save_for_backward(*tensors[:kept])
        ctx.set_materialize_grads(False)
        return tuple(after)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        try:
            _ = ctx.saved_tensors
        except RuntimeError as error:  # autograd has noticed another version
            raise RuntimeError(
                "weights, hyperparameters or another tensor that the inner loss uses "
                "were changed in place before backward(); step optimizers after it, "
                "or clone what is changed"
            ) from error
        direction = [
            torch.zeros(shape, dtype=dtype, device=device)
            if cotangent is None
            else cotangent
            for cotangent, (shape, dtype, device) in zip(
                cotangents, ctx.shapes, strict=True
            )
        ]
        found = ctx.pullback(direction)
        sources = (*found.params, *found.inputs, *found.rates)
        return (None, None, None, *[None] * ctx.kept, *sources)
