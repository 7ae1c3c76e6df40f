"""Inner updates: how the inner loss moves the weights, and how to go back through it.

An update maps (θ, λ) to new weights. What the outer loss needs of it is its pullback:
from the cotangent v = ∂L/∂θ_new to the cotangents of θ and λ.

Gradient, learn2learn's step: θ' = θ − η ∇_θ ℓ(θ, λ). With D = v·∇_θ ℓ(θ, λ),
    λ̄ = −η ∂D/∂λ,   θ̄ = v − η ∂D/∂θ.

Evolution, the paper's Algorithm 1: θ_k = θ + ε_k, ℓ_k = ℓ(θ_k, λ), w = softmax(−ℓ/τ),
θ* = Σ_k w_k θ_k. With s_k = v·ε_k and c_k = −(w_k/τ)(s_k − Σ_j w_j s_j),
    λ̄ = Σ_k c_k ∂ℓ_k/∂λ,   θ̄ = v + Σ_k c_k ∂ℓ_k/∂θ.

For small σ the second is the first with η = σ²(K−1)/(Kτ), in expectation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from l2l_evograd.estimators import (
    Estimator,
    EvoGrad,
    Exact,
    Guided,
    add_scaled,
    exact_mixed,
)
from l2l_evograd.losses import InnerLoss
from l2l_evograd.perturbations import Perturbations


class Cotangents(NamedTuple):
    """What a pullback returns.

    Attributes:
        params: θ̄, one tensor for each weight.
        inputs: λ̄, one tensor for each input, None where none was asked for.
    """

    params: list[Tensor]
    inputs: list[Tensor | None]


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


@dataclass(frozen=True)
class Gradient:
    """θ' = θ − η ∇_θ ℓ(θ, λ).

    Args:
        lr: η.
        estimator: of ∂D/∂λ.

    Cost:
        Nothing beyond the gradient that is handed in; the pullback costs what the
        estimator costs, and one second-order step where exact cotangents are wanted.
    """

    lr: float
    estimator: Estimator

    @property
    def uses_input_gradients(self) -> bool:
        """Whether ∂ℓ/∂λ at θ saves a pass later."""
        return isinstance(self.estimator, Guided) and self.estimator.scheme == "forward"

    def step(
        self,
        loss: InnerLoss,
        params: Sequence[Tensor],
        gradients: Sequence[Tensor],
        wanted: Wanted,
        seed: int,
        known: Sequence[Tensor] | None = None,
    ) -> Step:
        """Move the weights.

        Args:
            loss: ℓ.
            params: θ, detached.
            gradients: ∇_θ ℓ(θ, λ).
            wanted: whose cotangents the pullback returns.
            seed: of the perturbations.
            known: ∂ℓ/∂λ at θ for ``wanted.hyperparameters``.
        """
        before = [param.detach() for param in params]
        after = torch._foreach_add(before, list(gradients), alpha=-self.lr)

        def pullback(direction: list[Tensor]) -> Cotangents:
            inputs: list[Tensor | None] = [None] * len(loss.inputs)
            estimated, others = list(wanted.hyperparameters), list(wanted.others)
            if isinstance(self.estimator, Exact):
                estimated, others = [], estimated + others
            moved: Sequence[Tensor] = direction
            if others or wanted.curvature:
                curvature, grads = exact_mixed(
                    loss, before, direction, others, params_too=wanted.curvature
                )
                _fill(inputs, others, grads, -self.lr)
                if wanted.curvature:
                    moved = torch._foreach_add(direction, curvature, alpha=-self.lr)
            if estimated:
                grads = self.estimator.mixed(
                    loss, before, direction, estimated, seed, known
                )
                _fill(inputs, estimated, grads, -self.lr)
            return Cotangents(list(moved), inputs)

        return Step(list(after), pullback, keeps_params=not wanted.nothing)


@dataclass(frozen=True)
class Evolution:
    """θ* = Σ_k w_k θ_k, w = softmax(−ℓ/τ): the paper's Algorithm 1.

    Args:
        estimator: the population.

    Cost:
        K forward passes and K backward passes to λ in the step; the pullback is then
        a weighted sum. ∂ℓ_k/∂λ is kept for each candidate only while that takes no
        more memory than the weights; otherwise, and for θ̄, the pullback makes the
        passes again. One candidate's graph at a time.

    Source: Bohdal, Yang, Hospedales, NeurIPS 2021, Algorithm 1.
    """

    estimator: EvoGrad = field(default_factory=EvoGrad)

    def step(
        self,
        loss: InnerLoss,
        params: Sequence[Tensor],
        gradients: Sequence[Tensor],
        wanted: Wanted,
        seed: int,
        known: Sequence[Tensor] | None = None,
    ) -> Step:
        """Move the weights; see :meth:`Gradient.step`. ``gradients`` play no part."""
        del gradients, known
        before = [param.detach() for param in params]
        noise = self.estimator.perturbations(before, seed)
        return evolve(loss, before, noise, self.estimator.temperature, wanted)


Update = Gradient | Evolution


def evolve(
    loss: InnerLoss,
    params: list[Tensor],
    noise: Perturbations,
    temperature: float,
    wanted: Wanted,
) -> Step:
    """Algorithm 1 with the perturbations given; K = 1 gives θ + ε_1 and λ̄ = 0."""
    positions = [*wanted.hyperparameters, *wanted.others]
    rows_size = noise.count * sum(loss.leaves[p].numel() for p in positions)
    again = wanted.curvature or rows_size > sum(p.numel() for p in params)
    values, rows = [], []
    for k in range(noise.count):
        candidate = torch._foreach_add(params, noise.draw(k))
        if positions and not again:
            value, _, row = loss.gradients(candidate, positions)
            rows.append(row)
        else:
            with torch.no_grad():
                value = loss(candidate)
        values.append(value.detach().reshape(()))
    losses = torch.stack(values)
    weights = torch.softmax(-losses / temperature, dim=0)
    after = [param.clone() for param in params]
    for k in range(noise.count):
        add_scaled(after, noise.draw(k), weights[k])

    def pullback(direction: list[Tensor]) -> Cotangents:
        scores = noise.project(direction)
        scores = -weights / temperature * (scores - (weights * scores).sum())
        moved = [v.clone() for v in direction] if wanted.curvature else direction
        totals = [torch.zeros_like(loss.leaves[p]) for p in positions]
        for k in range(noise.count if positions or wanted.curvature else 0):
            if again:
                candidate = torch._foreach_add(params, noise.draw(k))
                _, slopes, row = loss.gradients(
                    candidate, positions, params_too=wanted.curvature
                )
                if wanted.curvature:
                    add_scaled(moved, slopes, scores[k])
            else:
                row = rows[k]
            add_scaled(totals, row, scores[k])
        inputs: list[Tensor | None] = [None] * len(loss.inputs)
        _fill(inputs, positions, totals, 1.0)
        return Cotangents(moved, inputs)

    return Step(after, pullback, keeps_params=again and not wanted.nothing)


def connected(
    step: Step, params: Sequence[Tensor], inputs: Sequence[Tensor]
) -> list[Tensor]:
    """Return the new weights on the autograd graph of θ and λ.

    ``backward()`` through them calls the step's pullback.

    Args:
        step: the update, done at the values of ``params``.
        params: θ as the caller's graph knows it.
        inputs: λ likewise.
    """
    # Handing the tensors over lets autograd notice if they are changed in place
    # before backward; the identity needs none of them.
    kept = [*params, *inputs] if step.keeps_params else []
    return list(
        _Pullback.apply(step.pullback, step.params, len(kept), *kept, *params, *inputs)
    )


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
        params, inputs = ctx.pullback(direction)
        return (None, None, None, *[None] * ctx.kept, *params, *inputs)


def _fill(
    inputs: list[Tensor | None],
    positions: Sequence[int],
    grads: Sequence[Tensor],
    scale: float,
) -> None:
    for position, grad in zip(positions, grads, strict=True):
        inputs[position] = grad * scale
