"""The adjoint of an inner step that autograd cannot differentiate itself.

:func:`attached` puts values on the caller's autograd graph, with a function that maps
the cotangents of the values to the cotangents of the tensors that they depend on.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from l2l_evograd.checks import InputError, NotFiniteError
from l2l_evograd.distributed import Processes
from l2l_evograd.finite import COTANGENT, HYPERGRADIENT, OUTER_ADVICE, Watch

Adjoint = Callable[[list[Tensor], Sequence[Tensor]], Sequence[Tensor | None]]


class Gate:
    """A switch that stops derivatives at the weights of the current step.

    While the gate is shut, derivatives do not go on into earlier steps. The gate is
    shut to take a partial derivative with the weights held fixed, on a graph on which
    earlier steps computed the weights.
    """

    def __init__(self) -> None:
        self.shut = False

    @contextlib.contextmanager
    def held(self, params: Sequence[Tensor]) -> Iterator[None]:
        """Hold ``params`` fixed for the derivatives that the body takes."""
        # The hooks stop derivatives wherever the weights were computed. The gate saves
        # earlier steps the cost of evaluating their adjoints at zero.
        hooks = [p.register_hook(torch.zeros_like) for p in params if p.grad_fn]
        try:
            with self.closed():
                yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """Shut the gate in the body; derivatives with respect to the weights go on."""
        self.shut = True
        try:
            yield
        finally:
            self.shut = False


@dataclass(frozen=True)
class Wanted:
    """The cotangents that the adjoint of a step has to return.

    Attributes:
        hyperparameters: positions of the inputs whose cotangent the estimator gives.
        others: positions of the inputs that get the exact cotangent.
        curvature: whether the cotangent of the weights includes −η ∂D/∂θ besides v.
    """

    hyperparameters: Sequence[int] = ()
    others: Sequence[int] = ()
    curvature: bool = False

    @property
    def nothing(self) -> bool:
        """Whether the adjoint is only the identity, θ̄ = v."""
        return not (self.hyperparameters or self.others or self.curvature)


def attached(
    values: Sequence[Tensor],
    sources: Sequence[Tensor],
    adjoint: Adjoint,
    kept: Sequence[Tensor],
    gate: Gate,
    watch: Watch | None = None,
) -> list[Tensor]:
    """Return ``values`` on the graph of ``sources``.

    Args:
        values: tensors without a graph.
        sources: the tensors that the values depend on, on the caller's graph.
        adjoint: called in ``backward()`` with the cotangents of the values and with
            ``kept``; returns one cotangent, or None, for each of ``sources``.
        kept: tensors that the adjoint needs. Autograd saves them: it raises an error if
            they are changed in place, and frees them after ``backward()``.
        gate: while it is shut, the sources get no cotangents.
        watch: what looks at the cotangents of the sources; None: nothing does.
    """
    link = _Link(list(values), adjoint, list(kept), gate, watch)
    return list(_Attached.apply(link, *sources))


@dataclass
class _Link:
    values: list[Tensor]
    adjoint: Adjoint
    kept: list[Tensor]
    gate: Gate
    watch: Watch | None


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, link: _Link, *sources: Tensor) -> tuple[Tensor, ...]:
        values, kept = link.values, link.kept
        # From here on only autograd holds references to these tensors.
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
                raise  # another error, such as a graph that was freed
            raise RuntimeError(
                "weights, hyperparameters or another tensor that the inner loss uses "
                "were changed in place before backward(); step optimizers after "
                "backward(), or clone a tensor before changing it"
            ) from error
        direction = [
            torch.zeros(shape, dtype=dtype, device=device)
            if cotangent is None
            else cotangent
            for cotangent, (shape, dtype, device) in zip(
                cotangents, ctx.shapes, strict=True
            )
        ]
        watch = link.watch
        if watch is None:
            return (None, *link.adjoint(direction, kept))
        try:
            found = link.adjoint(direction, kept)
            if watch.results:
                watch.look({HYPERGRADIENT: found})
        except InputError as error:
            cause = _cause(error, direction, watch)
            skips = watch.nan_policy == "skip" and isinstance(cause, NotFiniteError)
            if not skips:
                raise cause from None
            watch.skip()
            return (None,) * len(ctx.needs_input_grad)
        return (None, *found)


def _cause(error: InputError, direction: list[Tensor], watch: Watch) -> InputError:
    """Return the error to report: that of the cotangents if they are not finite."""
    try:
        watch.look({COTANGENT: direction}, OUTER_ADVICE)
    except NotFiniteError as cause:
        return cause
    return error


def averaged(
    direction: list[Tensor], processes: Processes, watch: Watch | None
) -> list[Tensor]:
    """Return the means of cotangents over processes.

    Raises:
        NotFiniteError: if one is not finite: in all processes, which would wait for
            each other otherwise. For one process the error of a result is enough.
    """
    if processes.group is None:
        return direction
    means = processes.means(direction)
    if watch is not None:
        watch.look({COTANGENT: means}, OUTER_ADVICE)
    return means


def watched(tensors: Sequence[Tensor], watch: Watch | None) -> list[Tensor]:
    """Return tensors whose cotangents are looked at in ``backward()``."""
    if watch is None:
        return list(tensors)
    # Copies, because autograd lets nobody write to what the function returns.
    return [tensor.clone() for tensor in _Watched.apply(watch, *tensors)]


class _Watched(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, watch: Watch, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.watch = watch
        ctx.set_materialize_grads(False)
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        if not ctx.watch.passes({COTANGENT: cotangents}, OUTER_ADVICE):
            return (None,) * (len(cotangents) + 1)
        return (None, *cotangents)


def constant_to_autograd(
    found: Sequence[Tensor | None], sources: Sequence[Tensor]
) -> list[Tensor | None]:
    """Return cotangents that must not be differentiated again.

    The cotangents are estimates, or were computed without a graph. If gradients are
    enabled, as with ``create_graph=True``, differentiating the result raises an error.
    Without that error, autograd would treat the cotangents as constants.

    Args:
        found: the cotangents.
        sources: the tensors that the cotangents depend on.
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
