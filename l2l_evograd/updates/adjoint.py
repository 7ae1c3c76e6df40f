"""The way back through a step that autograd does not know: its adjoint.

:func:`attached` puts values on the caller's graph, together with a function from their
cotangents to those of the tensors that they depend on.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Adjoint = Callable[[list[Tensor], Sequence[Tensor]], Sequence[Tensor | None]]


class Gate:
    """A door in the graph behind a learner's weights.

    While it is shut, derivatives stop at the weights of the present step: what the
    steps before it depended on stays out. It is shut where a partial derivative is
    wanted of a graph that goes on behind the weights.
    """

    def __init__(self) -> None:
        self.shut = False

    @contextlib.contextmanager
    def held(self, params: Sequence[Tensor]) -> Iterator[None]:
        """Take derivatives in the body with ``params`` held."""
        # Hooks stop them wherever the weights come from. The gate spares the steps
        # behind them the work of adjoints of zeros.
        hooks = [p.register_hook(torch.zeros_like) for p in params if p.grad_fn]
        self.shut = True
        try:
            yield
        finally:
            self.shut = False
            for hook in hooks:
                hook.remove()


@dataclass(frozen=True)
class Wanted:
    """Whose cotangents a step shall return.

    Attributes:
        hyperparameters: positions of the inputs that the estimator governs.
        others: positions of the inputs that get the exact cotangent.
        curvature: whether the weights get −η ∂D/∂θ beside the identity.
    """

    hyperparameters: Sequence[int] = ()
    others: Sequence[int] = ()
    curvature: bool = False

    @property
    def nothing(self) -> bool:
        """Whether only the identity is left."""
        return not (self.hyperparameters or self.others or self.curvature)


def attached(
    values: Sequence[Tensor],
    sources: Sequence[Tensor],
    adjoint: Adjoint,
    kept: Sequence[Tensor],
    gate: Gate,
) -> list[Tensor]:
    """Return ``values`` on the graph of ``sources``.

    Args:
        values: without a graph.
        sources: what they depend on, as the caller's graph knows it.
        adjoint: called in ``backward()`` with the cotangents of the values and with
            ``kept``; returns one cotangent, or None, for each of ``sources``.
        kept: tensors that it needs. Autograd notices if they are changed in place, and
            lets go of them after ``backward()`` as of all that it saves.
        gate: what stops derivatives here while it is shut.
    """
    return list(
        _Attached.apply(_Link(list(values), adjoint, list(kept), gate), *sources)
    )


@dataclass
class _Link:
    values: list[Tensor]
    adjoint: Adjoint
    kept: list[Tensor]
    gate: Gate


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, link: _Link, *sources: Tensor) -> tuple[Tensor, ...]:
        values, kept = link.values, link.kept
        # From here on autograd alone holds them.
        link.values, link.kept = [], []
        ctx.link = link
        ctx.shapes = [(t.shape, t.dtype, t.device) for t in values]
        ctx.save_for_backward(*kept)
        ctx.set_materialize_grads(False)
        return tuple(value.view_as(value) for value in values)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        link = ctx.link
        if link.gate.shut:
            return (None,) * len(ctx.needs_input_grad)
        try:
            kept = ctx.saved_tensors
        except RuntimeError as error:
            if "inplace" not in str(error):
                raise  # such as backward() through a graph that is gone
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
        return (None, *link.adjoint(direction, kept))


def constant_to_autograd(
    found: Sequence[Tensor | None], sources: Sequence[Tensor]
) -> list[Tensor | None]:
    """Return cotangents that must not be differentiated again.

    They are estimates, or were computed apart from any graph. Where gradients are on,
    as for ``create_graph=True``, differentiating them raises an error; they would count
    as constants otherwise.

    Args:
        found: the cotangents.
        sources: what they depend on.
    """
    if not torch.is_grad_enabled():
        return list(found)
    given = [t for t in found if t is not None]
    if not given:
        return list(found)
    guarded = iter(_NotAgain.apply(len(given), *given, *sources))
    return [None if t is None else next(guarded) for t in found]


class _NotAgain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(t.view_as(t) for t in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        raise RuntimeError(
            "an estimated hypergradient cannot be differentiated again "
            "(create_graph=True): use estimator='exact' with first_order=False, whose "
            "derivative is on autograd's graph"
        )
