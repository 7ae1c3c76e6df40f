"""The gradient step θ' = θ − η ∇_θ ℓ(θ, λ) and its adjoint.

The step itself is ordinary arithmetic on the caller's graph. The outer loss also needs
the adjoint of ∇_θ ℓ. With v the cotangent of θ', and D = v·∇_θ ℓ(θ, λ) the directional
derivative of the inner loss along v,

    λ̄ = −η ∂D/∂λ,   θ̄ = v − η ∂D/∂θ.

The adjoint of ∇_θ ℓ is one of these:

- none: ``first_order`` without λ. Then θ̄ = v.
- autograd's own graph: exact for everything, including higher derivatives.
- autograd's own graph for λ alone: ``Exact`` with ``first_order``.
- computed again in ``backward()``: exact, with the memory of one step. For λ alone
  this is forward over reverse, which needs no second-order graph.
- estimated: λ̄ by ``Guided`` or ``EvoGrad``; all other terms are exact or dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from l2l_evograd.checks import check_differentiable
from l2l_evograd.distributed import Processes
from l2l_evograd.estimators import Estimator, Exact, Guided, Question
from l2l_evograd.estimators.exact import exact_mixed, lacks_forward
from l2l_evograd.finite import Watch
from l2l_evograd.replay.autograd_graph import graph_bytes, reached_from, reaches
from l2l_evograd.replay.inner_loss import InnerLoss, digest
from l2l_evograd.replay.program import LostHistory
from l2l_evograd.replay.wrong_derivatives import warn_of_wrong_derivatives
from l2l_evograd.updates.adjoint import (
    Gate,
    Wanted,
    attached,
    averaged,
    constant_to_autograd,
    watched,
)
from l2l_evograd.updates.situation import Situation, Stepped, roles


@dataclass(frozen=True)
class Gradient:
    """θ' = θ − η ∇_θ ℓ(θ, λ).

    Args:
        estimator: the estimator of ∂D/∂λ.
        processes: the processes over which the losses are averaged. The gradient is the
            mean. The adjoint averages v, and returns this process's own λ̄.

    Cost:
        The step makes one backward pass. The adjoint costs what the estimator costs. On
        autograd's own graph, the adjoint is one backward pass through the step, and the
        graph of the step is kept until then. Computed again by double backward, the
        adjoint is a forward pass, a backward pass, and a backward pass through both.
    """

    estimator: Estimator = field(default_factory=Guided)
    processes: Processes = field(default_factory=Processes)

    def step(self, now: Situation) -> Stepped:
        """Move the weights."""
        check_differentiable(now.value)
        estimator = self.estimator
        if now.check:
            twice = estimator.exact or not now.first_order
            warn_of_wrong_derivatives([now.value], twice)
        estimated = bool(now.hyperparameters) and not estimator.exact
        forward, size = False, None
        if isinstance(estimator, Exact) and now.hyperparameters:
            if estimator.mode == "auto" and now.first_order and not now.keep:
                size = graph_bytes([now.value], now.params)
            forward = estimator.goes_forward(not now.first_order, size, now.keep)
        if estimated or now.again or forward:
            try:
                loss = InnerLoss(now.target, now.params, hold=True)
            except LostHistory:
                if estimated or now.insist:
                    raise
                # Autograd's graph exists anyway and gives the exact answer.
            else:
                if estimated or now.again or not lacks_forward(loss):
                    return replace(self._apart(now, loss), size=size)
                size = 0  # later steps need not be recorded
        return replace(self._on_graph(now), size=size)

    def _on_graph(self, now: Situation) -> Stepped:
        """Take the step on the graph that autograd built; keep or drop that graph."""
        everything = not now.first_order
        lambda_alone = bool(now.hyperparameters) and not everything
        reached = reaches(now.value, now.hyperparameters) if now.hyperparameters else []
        found = now.differentiate(create_graph=everything or lambda_alone)
        slopes = now.filled(found)
        extras = now.extras_of(found)
        if everything:
            stepped = now.moved(slopes, slopes, reached, extras, graph=slopes)
            if now.hyperparameters:
                return replace(stepped, params=watched(stepped.params, now.watch))
            return stepped
        known = self.processes.mean([None if s is None else s.detach() for s in slopes])
        places = [i for i, s in enumerate(slopes) if s is not None and s.requires_grad]
        pairs = zip(now.hyperparameters, reached, strict=True)
        inputs = [tensor for tensor, hit in pairs if hit]
        if not (lambda_alone and inputs and places):
            return now.moved(known, known, reached, extras)
        kept = [s for i in places if (s := slopes[i]) is not None]
        attached_slopes = attached(
            [s for i in places if (s := known[i]) is not None],
            inputs,
            _OnGraph(self.processes, inputs, now.gate, now.watch),
            [*kept, *now.params],
            now.gate,
            now.watch,
        )
        on_graph = list(known)
        for place, slope in zip(places, attached_slopes, strict=True):
            on_graph[place] = slope
        return now.moved(on_graph, known, reached, extras, graph=kept)

    def _apart(self, now: Situation, loss: InnerLoss) -> Stepped:
        """Take the step; the adjoint evaluates the loss again, without that graph."""
        wanted, reached = roles(loss, now.hyperparameters, now.first_order)
        governed = [loss.inputs[p] for p in wanted.hyperparameters]
        known: list[Tensor] | None = None
        known_helps = self.estimator.uses_known and now.each is None
        if not (known_helps and governed and _partial(now, governed)):
            governed = []
        before = [param.detach() for param in now.params]
        comparable = _partials(loss, now) if now.check else []
        found = now.differentiate(governed)
        slopes = now.filled(found)
        if any(s is not None and s.layout != torch.strided for s in slopes):
            raise ValueError(
                "expected dense gradients of an inner loss that is computed again, got "
                "sparse gradients, as from nn.Embedding(sparse=True); use "
                "sparse=False, or memory='graph' without an estimated hypergradient"
            )
        if now.check:
            loss.check(now.target, before, slopes, comparable)
        if governed:
            start = len(now.params)
            pairs = zip(found[start : start + len(governed)], governed, strict=True)
            known = [torch.zeros_like(t) if g is None else g for g, t in pairs]
        own = [
            torch.zeros_like(param) if slope is None else slope
            for slope, param in zip(slopes, before, strict=True)
        ]
        values = self.processes.means(own)
        extras = now.extras_of(found)
        if wanted.nothing:
            return now.moved(values, values, reached, extras)
        slopes_on_graph = attached(
            values,
            [*now.params, *loss.inputs],
            _Adjoint(
                self,
                loss,
                wanted,
                now.seed,
                digest(own) if now.again else None,
                known,
                now.each is not None,
                now.watch,
            ),
            [*now.params, *loss.inputs],
            now.gate,
            now.watch,
        )
        return now.moved(slopes_on_graph, values, reached, extras)


@dataclass(frozen=True)
class _OnGraph:
    """The adjoint of ∇_θ ℓ for λ alone, on the graph that the step kept."""

    processes: Processes
    inputs: list[Tensor]
    gate: Gate
    watch: Watch | None

    def __call__(
        self, direction: list[Tensor], kept: Sequence[Tensor]
    ) -> Sequence[Tensor | None]:
        """Return the cotangents of the inputs."""
        slopes, params = kept[: len(direction)], kept[len(direction) :]
        direction = averaged(direction, self.processes, self.watch)
        with self.gate.held(params):
            return torch.autograd.grad(
                slopes,
                self.inputs,
                direction,
                retain_graph=True,
                create_graph=torch.is_grad_enabled(),
                allow_unused=True,
            )


@dataclass(frozen=True)
class _Adjoint:
    """The adjoint of ∇_θ ℓ, from evaluations of the loss without the caller's graph."""

    update: Gradient
    loss: InnerLoss
    wanted: Wanted
    seed: int | Sequence[int]
    slopes: Tensor | None
    known: list[Tensor] | None
    per_task: bool
    watch: Watch | None

    def __call__(
        self, direction: list[Tensor], kept: Sequence[Tensor]
    ) -> Sequence[Tensor | None]:
        """Return the cotangents of the weights and of the inputs."""
        estimator, loss, wanted = self.update.estimator, self.loss, self.wanted
        direction = averaged(direction, self.update.processes, self.watch)
        params = list(kept[: len(direction)])
        inputs: list[Tensor | None] = [None] * len(loss.inputs)
        weights: list[Tensor | None] = [None] * len(params)
        exact, estimated = list(wanted.others), list(wanted.hyperparameters)
        if estimator.exact:
            exact, estimated = [*estimated, *exact], []
        if exact or wanted.curvature:
            mixed = exact_mixed
            if isinstance(estimator, Exact):
                mixed = estimator.mixed_with_weights
            curvature, grads = mixed(
                loss, params, direction, exact, wanted.curvature, self.slopes
            )
            if wanted.curvature:
                weights = list(curvature)
            for position, grad in zip(exact, grads, strict=True):
                inputs[position] = grad
        if estimated:
            before = [param.detach() for param in params]
            with torch.no_grad():
                # ``direction`` is −η v. One-sided differences step along +v.
                along = torch._foreach_neg(direction)
                question = Question(
                    loss, before, along, estimated, self.seed, self.known, self.per_task
                )
                estimates = torch._foreach_neg(estimator.mixed(question))
            guarded = constant_to_autograd(estimates, [*kept, *direction])
            for position, guard in zip(estimated, guarded, strict=True):
                inputs[position] = guard
        return [*weights, *inputs]


def _partials(loss: InnerLoss, now: Situation) -> list[tuple[int, Tensor | None]]:
    """Return positions of inputs with ∂ℓ/∂input, where the graph of ℓ gives it.

    The graph gives the partial derivative for leaves from which no other input was
    computed.
    """
    computed = [t for t in loss.inputs if t.grad_fn is not None]
    leaves = [t for t in loss.inputs if t.grad_fn is None]
    behind = reached_from(computed, leaves) if computed else [False] * len(leaves)
    free = [t for t, hit in zip(leaves, behind, strict=True) if not hit]
    if not free:
        return []
    with now.gate.held(now.params):
        grads = torch.autograd.grad(
            now.value, free, retain_graph=True, allow_unused=True
        )
    places = {id(tensor): place for place, tensor in enumerate(loss.inputs)}
    return [(places[id(t)], grad) for t, grad in zip(free, grads, strict=True)]


def _partial(now: Situation, inputs: Sequence[Tensor]) -> bool:
    """Say whether the graph of ℓ gives ∂ℓ/∂inputs with θ held fixed.

    It does not if one input was computed from another, or if the weights were computed
    from an input, as after an earlier step. It does not either if an input is not on
    the graph, such as the copy of a tensor that was written to.
    """
    for tensor in inputs:
        if any(reaches(tensor, [t for t in inputs if t is not tensor])):
            return False
    return not any(reached_from(now.params, inputs)) and all(reaches(now.value, inputs))
