"""Inner updates: how the inner loss moves the weights, and how to go back through it.

An update maps (θ, λ) to new weights. What the outer loss needs of it is its pullback:
from the cotangent v = ∂L/∂θ_new to the cotangents of θ and λ.

Gradient, learn2learn's step: θ' = θ − η ∇_θ ℓ(θ, λ). With D = v·∇_θ ℓ(θ, λ),
    λ̄ = −η ∂D/∂λ,   θ̄ = v − η ∂D/∂θ,   η̄ = −D.
A rate for each weight, as in Meta-SGD, goes with v: D = (η ⊙ v)·∇_θ ℓ(θ, λ).

Evolution, the paper's Algorithm 1: θ_k = θ + ε_k, ℓ_k = ℓ(θ_k, λ), w = softmax(−ℓ/τ),
θ* = Σ_k w_k θ_k. With s_k = v·ε_k and c_k = −(w_k/τ)(s_k − Σ_j w_j s_j),
    λ̄ = Σ_k c_k ∂ℓ_k/∂λ,   θ̄ = v + Σ_k c_k ∂ℓ_k/∂θ.

For small σ the second is the first with η = σ²(K−1)/(Kτ), in expectation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from l2l_evograd.estimators import (
    Estimator,
    EvoGrad,
    Exact,
    Guided,
    add_scaled,
)
from l2l_evograd.losses import InnerLoss
from l2l_evograd.perturbations import Perturbations
from l2l_evograd.processes import Processes
from l2l_evograd.pullback import Cotangents, Step, Wanted
from l2l_evograd.second_order import exact_mixed
from l2l_evograd.stored import StoredGraph


@dataclass(frozen=True)
class Gradient:
    """θ' = θ − η ∇_θ ℓ(θ, λ).

    Args:
        lr: η, a number, or a tensor for each weight that has its shape or broadcasts
            to it; these get exact cotangents −v ⊙ ∇_θ ℓ.
        estimator: of ∂D/∂λ.
        processes: that the losses are means over. The gradients handed to
            :meth:`step` are means already; the pullback makes one of v, and returns
            this process's own λ̄.

    Cost:
        Nothing beyond the gradient that is handed in; the pullback costs what the
        estimator costs, and one second-order step where exact cotangents are wanted.
        A graph that is handed in saves two of that step's three passes. Tensors as
        rates keep the gradient until the pullback.
    """

    lr: float | Sequence[Tensor]
    estimator: Estimator
    processes: Processes = field(default_factory=Processes)

    @property
    def rates(self) -> Sequence[Tensor]:
        """η where it consists of tensors."""
        return () if isinstance(self.lr, float) else self.lr

    @property
    def uses_input_gradients(self) -> bool:
        """Whether ∂ℓ/∂λ at θ saves a pass later."""
        return isinstance(self.estimator, Guided) and self.estimator.scheme == "forward"

    def exact(self, wanted: Wanted) -> list[int]:
        """Return the positions of the inputs that get exact cotangents."""
        governed = wanted.hyperparameters if isinstance(self.estimator, Exact) else ()
        return [*governed, *wanted.others]

    def step(
        self,
        loss: InnerLoss,
        params: Sequence[Tensor],
        gradients: Sequence[Tensor],
        wanted: Wanted,
        seed: int,
        known: Sequence[Tensor] | None = None,
        stored: StoredGraph | None = None,
    ) -> Step:
        """Move the weights.

        Args:
            loss: ℓ.
            params: θ, detached.
            gradients: ∇_θ ℓ(θ, λ), detached.
            wanted: whose cotangents the pullback returns.
            seed: of the perturbations.
            known: ∂ℓ/∂λ at θ for ``wanted.hyperparameters``.
            stored: ∇_θ ℓ(θ, λ) on a graph.
        """
        before = [param.detach() for param in params]
        rates = [rate.detach() for rate in self.rates]
        after, scale = self._moved(before, gradients, rates)
        slopes = list(gradients) if rates else []
        exact = self.exact(wanted)
        estimated = [] if isinstance(self.estimator, Exact) else wanted.hyperparameters

        def pullback(direction: list[Tensor]) -> Cotangents:
            direction = self.processes.means(direction)
            inputs: list[Tensor | None] = [None] * len(loss.inputs)
            scaled, moved = direction, direction
            if rates:
                scaled = [v * rate for v, rate in zip(direction, rates, strict=True)]
            if exact or wanted.curvature:
                found = stored and stored.mixed(scaled, exact, wanted.curvature)
                if not found:
                    found = exact_mixed(loss, before, scaled, exact, wanted.curvature)
                curvature, grads = found
                _fill(inputs, exact, grads, scale)
                if wanted.curvature:
                    moved = list(torch._foreach_add(direction, curvature, alpha=scale))
            if estimated:
                grads = self.estimator.mixed(
                    loss, before, scaled, estimated, seed, known
                )
                _fill(inputs, estimated, grads, scale)
            return Cotangents(moved, inputs, _rate_cotangents(rates, direction, slopes))

        if wanted.nothing and not rates:
            return Step(after, _identity(len(loss.inputs)), keeps_params=False)
        return Step(after, pullback, keeps_params=not wanted.nothing)

    def _moved(
        self,
        params: Sequence[Tensor],
        gradients: Sequence[Tensor],
        rates: Sequence[Tensor],
    ) -> tuple[list[Tensor], float]:
        """Return the new weights, and the factor of what multiplies the gradient."""
        if isinstance(self.lr, float):
            scale = -self.lr
            after = torch._foreach_add(list(params), list(gradients), alpha=scale)
            return list(after), scale
        steps = zip(params, gradients, rates, strict=True)
        return [p - rate * gradient for p, gradient, rate in steps], -1.0


@dataclass(frozen=True)
class Evolution:
    """θ* = Σ_k w_k θ_k, w = softmax(−ℓ/τ): the paper's Algorithm 1.

    Args:
        estimator: the population, and the processes that share out its candidates.
        processes: that the losses are means over; the pullback returns this process's
            own λ̄.

    Cost:
        K forward passes and K backward passes to λ in the step; the pullback is then
        a weighted sum. ∂ℓ_k/∂λ is kept for each candidate only while that takes no
        more memory than the weights; otherwise, and for θ̄, the pullback makes the
        passes again. One candidate's graph at a time. Of processes that share out the
        candidates, each makes the passes of its own; between them go K losses in the
        step, and λ̄ in the pullback, with θ̄ where it is more than v.

    Source: Bohdal, Yang, Hospedales, NeurIPS 2021, Algorithm 1.
    """

    estimator: EvoGrad = field(default_factory=EvoGrad)
    processes: Processes = field(default_factory=Processes)

    def step(
        self,
        loss: InnerLoss,
        params: Sequence[Tensor],
        gradients: Sequence[Tensor],
        wanted: Wanted,
        seed: int,
        known: Sequence[Tensor] | None = None,
        stored: StoredGraph | None = None,
    ) -> Step:
        """Move the weights; see :meth:`Gradient.step`. ``gradients`` play no part."""
        del gradients, known, stored
        before = [param.detach() for param in params]
        noise = self.estimator.perturbations(before, seed)
        temperature = self.estimator.temperature
        sharing = self.estimator.processes
        return evolve(loss, before, noise, temperature, wanted, self.processes, sharing)


Update = Gradient | Evolution


def evolve(
    loss: InnerLoss,
    params: list[Tensor],
    noise: Perturbations,
    temperature: float,
    wanted: Wanted,
    processes: Processes | None = None,
    population: Processes | None = None,
) -> Step:
    """Algorithm 1 with the perturbations given; K = 1 gives θ + ε_1 and λ̄ = 0.

    Args:
        loss: ℓ.
        params: θ, detached.
        noise: ε_k, the same in all processes.
        temperature: τ.
        wanted: whose cotangents the pullback returns.
        processes: that the losses are means over.
        population: processes that share out the candidates.
    """
    processes = processes or Processes()
    population = population or Processes()
    mine = population.share(noise.count)
    positions = [*wanted.hyperparameters, *wanted.others]
    rows_size = noise.count * sum(loss.leaves[p].numel() for p in positions)
    again = wanted.curvature or rows_size > sum(p.numel() for p in params)
    values: list[Tensor] = []
    rows: dict[int, list[Tensor]] = {}
    # Without a candidate of its own, a process still has to know what a loss is like.
    for k in mine or [0]:
        candidate = torch._foreach_add(params, noise.draw(k))
        if mine and positions and not again:
            value, _, rows[k] = loss.gradients(candidate, positions)
        else:
            with torch.no_grad():
                value = loss(candidate)
        values.append(value.detach().reshape(()))
    (losses,) = processes.means([population.gathered(values, noise.count)])
    weights = torch.softmax(-losses / temperature, dim=0)
    after = [param.clone() for param in params]
    for k in range(noise.count):
        add_scaled(after, noise.draw(k), weights[k])

    def pullback(direction: list[Tensor]) -> Cotangents:
        direction = processes.means(direction)
        scores = noise.project(direction)
        scores = -weights / temperature * (scores - (weights * scores).sum())
        totals = [torch.zeros_like(loss.leaves[p]) for p in positions]
        moved: list[Tensor] = []
        if wanted.curvature:
            # θ̄ is summed over the processes too, and v belongs in it once.
            once = population.rank == 0
            moved = [v.clone() if once else torch.zeros_like(v) for v in direction]
        for k in mine if positions or wanted.curvature else ():
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
        sums = population.sums([*totals, *moved])
        inputs: list[Tensor | None] = [None] * len(loss.inputs)
        _fill(inputs, positions, sums[: len(totals)], 1.0)
        return Cotangents(sums[len(totals) :] or direction, inputs)

    return Step(after, pullback, keeps_params=again and not wanted.nothing)


def _identity(inputs: int) -> Callable[[list[Tensor]], Cotangents]:
    """Return a pullback that holds on to nothing."""
    return lambda direction: Cotangents(direction, [None] * inputs)


def _rate_cotangents(
    rates: Sequence[Tensor], direction: Sequence[Tensor], slopes: Sequence[Tensor]
) -> list[Tensor]:
    if not rates:
        return []
    return [
        (-v * slope).sum_to_size(rate.shape)
        for rate, v, slope in zip(rates, direction, slopes, strict=True)
    ]


def _fill(
    inputs: list[Tensor | None],
    positions: Sequence[int],
    grads: Sequence[Tensor],
    scale: float,
) -> None:
    for position, grad in zip(positions, grads, strict=True):
        inputs[position] = grad * scale
