"""The paper's Algorithm 1: a population of perturbed weights, merged.

θ_k = θ + ε_k, ℓ_k = ℓ(θ_k, λ), w = softmax(−ℓ/τ), θ* = Σ_k w_k θ_k = θ + Σ_k w_k ε_k.
With v the cotangent of θ*, s_k = v·ε_k and c_k = −(w_k/τ)(s_k − Σ_j w_j s_j),

    λ̄ = Σ_k c_k ∂ℓ_k/∂λ,   θ̄ = v + Σ_k c_k ∂ℓ_k/∂θ.

For small σ this is, in expectation, the gradient step with η = σ²(K−1)/(Kτ).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from l2l_evograd.distributed import Processes
from l2l_evograd.estimators import EvoGrad
from l2l_evograd.estimators.base import add_scaled
from l2l_evograd.estimators.perturbations import Perturbations, PerturbationsOfTasks
from l2l_evograd.estimators.scaling import in_turn, normalised, power_of_number
from l2l_evograd.finite import Watch
from l2l_evograd.replay.inner_loss import InnerLoss
from l2l_evograd.updates.adjoint import (
    Wanted,
    attached,
    averaged,
    constant_to_autograd,
)
from l2l_evograd.updates.situation import Situation, Stepped, roles


@dataclass(frozen=True)
class Evolution:
    """θ* = Σ_k w_k θ_k, w = softmax(−ℓ/τ): the paper's Algorithm 1.

    Args:
        estimator: the population, and the processes that split its candidates.
        processes: the processes over which the losses are averaged. The adjoint returns
            this process's own λ̄.

    Cost:
        The step makes K forward passes. If ∂ℓ_k/∂λ of all candidates takes no more
        memory than the weights, the step also makes K backward passes to λ and stores
        these derivatives; the adjoint is then a weighted sum. Otherwise, and for θ̄, the
        adjoint makes K forward and K backward passes. Only one candidate's graph exists
        at a time. If several processes split the candidates, each makes the passes of
        its own candidates. They exchange K losses in the step, and λ̄ in the adjoint,
        with θ̄ if it is more than v.

    Source: Bohdal, Yang, Hospedales, NeurIPS 2021, Algorithm 1.
    """

    estimator: EvoGrad = field(default_factory=EvoGrad)
    processes: Processes = field(default_factory=Processes)

    def step(self, now: Situation) -> Stepped:
        """Move the weights."""
        loss = InnerLoss(now.target, now.params, hold=False)
        wanted, reached = roles(loss, now.hyperparameters, now.first_order)
        before = [param.detach() for param in now.params]
        if now.check:
            _check(loss, now, before)
        if now.beforehand is not None:
            now.beforehand(now.value, now.params)
        noise = self.estimator.perturbations(before, now.seed)
        displacement, back = evolve(
            loss,
            before,
            noise,
            self.estimator.temperature,
            wanted,
            self.processes,
            self.estimator.processes,
            self.estimator,
            now.watch,
        )
        if not wanted.nothing:
            displacement = attached(
                displacement,
                [*now.params, *loss.inputs],
                lambda direction, kept: constant_to_autograd(
                    back(direction), [*kept, *direction]
                ),
                [*now.params, *loss.inputs],
                now.gate,
                now.watch,
            )
        after = [p + d for p, d in zip(now.params, displacement, strict=True)]
        return Stepped(after, [], reached, [])


Back = Callable[[Sequence[Tensor]], list[Tensor | None]]


def evolve(
    loss: InnerLoss,
    params: list[Tensor],
    noise: Perturbations | PerturbationsOfTasks,
    temperature: float,
    wanted: Wanted,
    processes: Processes | None = None,
    population: Processes | None = None,
    estimator: EvoGrad | None = None,
    watch: Watch | None = None,
) -> tuple[list[Tensor], Back]:
    """Run Algorithm 1 with given perturbations; K = 1 gives ε_1 and λ̄ = 0.

    Args:
        loss: ℓ, or the loss of each task. Each task then merges its own population.
        params: θ, detached.
        noise: ε_k, the same in all processes.
        temperature: τ.
        wanted: the cotangents that the adjoint returns.
        processes: the processes over which the losses are averaged.
        population: the processes that split the candidates.
        estimator: looks at the numbers of the population, if given.
        watch: looks at v.

    Returns:
        θ* − θ, and its adjoint. The adjoint maps v to the cotangents of the weights,
        without the term v of θ itself, and to the cotangents of the inputs.
    """
    processes = processes or Processes()
    population = population or Processes()
    mine = population.share(noise.count)
    positions = [*wanted.hyperparameters, *wanted.others]
    rows_size = noise.count * sum(loss.leaves[p].numel() for p in positions)
    per_task = isinstance(noise, PerturbationsOfTasks)
    again = wanted.curvature or rows_size > sum(p.numel() for p in params) or per_task
    values: list[Tensor] = []
    rows: dict[int, list[Tensor]] = {}
    # A process without candidates evaluates one anyway: it needs the dtype of a loss.
    for k in mine or [0]:
        candidate = torch._foreach_add(params, noise.draw(k))
        if mine and positions and not again:
            value, _, rows[k] = loss.gradients(candidate, positions)
        else:
            with torch.no_grad():
                value = loss(candidate)
        values.append(value.detach().reshape((-1,) if per_task else ()))
    (losses,) = processes.means([population.gathered(values, noise.count)])
    look = None
    if estimator is not None:
        look = estimator.look_at_population(params, noise, losses, temperature)
    weights = torch.softmax(-losses / temperature, dim=0)
    displacement = [torch.zeros_like(param) for param in params]
    for k in range(noise.count):
        add_scaled(displacement, noise.draw(k), weights[k])

    @torch.no_grad()
    def back(direction: Sequence[Tensor]) -> list[Tensor | None]:
        direction = averaged(list(direction), processes, watch)
        direction, power = normalised(direction, per_task)
        scores = noise.project(direction)
        if per_task:
            scores, power = scores * (power / power.amax()), power.amax()
        unit = power_of_number(temperature)
        scores = scores - (weights * scores).sum(0)
        scores = -weights / (temperature / unit) * scores
        totals = [torch.zeros_like(loss.leaves[p]) for p in positions]
        curvature: list[Tensor] = []
        if wanted.curvature:
            curvature = [torch.zeros_like(v) for v in direction]
        for k in mine if positions or wanted.curvature else ():
            if again:
                candidate = torch._foreach_add(params, noise.draw(k))
                _, slopes, row = loss.gradients(
                    candidate, positions, wanted.curvature, scores[k]
                )
                for total, part in zip(
                    [*curvature, *totals], [*slopes, *row], strict=True
                ):
                    total.add_(part)
            else:
                add_scaled(totals, rows[k], scores[k])
        sums = population.sums([*totals, *curvature])
        if look is not None:
            kinds = [total.dtype for total in sums]
            look.at_result(sums, direction, power, kinds, 1 / unit)
        sums = [in_turn(total, 1 / unit, power) for total in sums]
        inputs: list[Tensor | None] = [None] * len(loss.inputs)
        for position, total in zip(positions, sums, strict=False):
            inputs[position] = total
        moved: list[Tensor | None] = [None] * len(params)
        if wanted.curvature:
            moved = list(sums[len(positions) :])
        return [*moved, *inputs]

    return displacement, back


def _check(loss: InnerLoss, now: Situation, params: Sequence[Tensor]) -> None:
    slopes: list[Tensor | None] = [None] * len(params)
    if now.value.requires_grad:
        slopes = list(
            torch.autograd.grad(
                now.value, now.params, allow_unused=True, retain_graph=True
            )
        )
    loss.check(now.target, params, slopes)
