"""``EvoGrad``: the paper's population of perturbed models as an estimator."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from l2l_evograd.checks import check_choice, check_positive
from l2l_evograd.distributed import Processes
from l2l_evograd.estimators.base import Estimator, Question, add_scaled
from l2l_evograd.estimators.judgement import Perturbed, displacement, say_saturated
from l2l_evograd.estimators.notices import Notices
from l2l_evograd.estimators.perturbations import (
    FAMILIES,
    SAMPLINGS,
    Perturbations,
    PerturbationsOfTasks,
)
from l2l_evograd.estimators.scaling import in_turn, largest, normalised, sum_dtype

if TYPE_CHECKING:  # some builds of torch lack it
    from torch.distributed import ProcessGroup


@dataclass(frozen=True)
class EvoGrad(Estimator):
    """The paper's population of K perturbed models.

    With ``update="evolution"`` the population is that of Algorithm 1. With
    ``update="gradient"`` the same population estimates
    ∂D/∂λ ≈ Σ_k (s_k − s̄) ∂_λ ℓ(θ + ε_k) / ((K − 1) σ²). The expectation of this
    estimate tends to ∂D/∂λ as σ → 0. The estimate does not use the temperature.

    Args:
        n_model_candidates: K, at least 2. With one candidate the estimate is exactly 0.
        sigma: σ, the standard deviation of the perturbation of every weight.
        temperature: τ of w = softmax(−ℓ/τ), for ``update="evolution"``.
        noise: ``"rademacher"`` (±σ, as in the paper's experiments) or ``"gaussian"``.
        sampling: ``"plain"``, ``"antithetic"`` (pairs ±ε, K even) or ``"orthogonal"``.
        process_group: the processes that split the candidates among themselves. Of N
            processes, process r evaluates the candidates with k mod N = r. All
            processes make the same calls in the same order, with the same weights, λ,
            data and torch random state. (The process_group of
            :func:`~l2l_evograd.bilevel_step` is different: there, each process has its
            own data.) All processes use the first process's seed for the perturbations.
            All get the same result as a single process would. None: this process
            evaluates all candidates. Copies of the estimator share the group. An
            estimator with a group cannot be pickled.

    Raises:
        ValueError: for values outside these ranges.
        TypeError: if process_group is not a process group.

    The first ten estimates and every tenth are looked at. An error or a warning says
    what to change if σ is lost in rounding, if a candidate's loss is not finite, if one
    candidate has all of the weight, or if the result is out of range.

    Cost:
        K forward passes and K backward passes to λ. Only one candidate's graph exists
        at a time. At K = 2 a single estimate is mostly noise: its cosine to the exact
        hypergradient falls with the square root of the number of weights.

        With N processes, each process makes at most ⌈K/N⌉ of the passes, and draws all
        perturbations. The processes exchange the seed, the K losses and one message of
        the size of λ. They exchange a message of the size of the weights only if the
        curvature of ``update="evolution"`` is wanted. If one process fails, the others
        wait for it until the group's timeout.

    Source: Bohdal, Yang, Hospedales, "EvoGrad", NeurIPS 2021, Algorithm 1.
    """

    random: ClassVar[bool] = True

    n_model_candidates: int = 2
    sigma: float = 1e-3
    temperature: float = 0.05
    noise: str = "rademacher"
    sampling: str = "plain"
    process_group: "ProcessGroup | None" = field(default=None, repr=False)
    _notices: Notices = field(
        default_factory=Notices, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Check the arguments."""
        count = self.n_model_candidates
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(
                f"expected n_model_candidates (K) to be a whole number of at least 2, "
                f"got {count!r}"
            )
        if count == 1:
            raise ValueError(
                "the hypergradient of a single candidate (n_model_candidates = 1) is "
                "exactly 0; use at least 2"
            )
        check_positive(self.sigma, "sigma")
        check_positive(self.temperature, "temperature")
        check_choice(self.noise, FAMILIES, "noise")
        check_choice(self.sampling, SAMPLINGS, "sampling")
        if self.sampling == "antithetic" and count % 2:
            raise ValueError(
                f"antithetic noise comes in pairs: expected an even "
                f"n_model_candidates, got {count}"
            )
        Processes(self.process_group)  # raises a TypeError for other objects

    @property
    def processes(self) -> Processes:
        """The processes that split the candidates among themselves."""
        return Processes(self.process_group)

    def perturbations(
        self, params: Sequence[Tensor], seed: int | Sequence[int]
    ) -> Perturbations | PerturbationsOfTasks:
        """Return the population's perturbations of ``params``, equal in all processes.

        Args:
            params: the weights; with a leading task axis if there are several seeds.
            seed: a seed, or one for each task.

        Cost: one message of one number for each seed if there are several processes.
        """
        if not isinstance(seed, int):
            alone = [param[0] for param in params]
            return PerturbationsOfTasks([self._perturbations(alone, s) for s in seed])
        return self._perturbations(params, seed)

    def _perturbations(self, params: Sequence[Tensor], seed: int) -> Perturbations:
        return Perturbations(
            params,
            self.n_model_candidates,
            self.sigma,
            self.processes.common(seed, params[0].device),
            self.noise,
            self.sampling,
        )

    @property
    def learning_rate(self) -> float:
        """η = σ²(K−1)/(Kτ), the rate of the gradient step equivalent to Algorithm 1.

        It is σ²/τ for antithetic noise, whose mean is exactly 0.
        """
        count = self.n_model_candidates
        freedom = count if self.sampling == "antithetic" else count - 1
        return self.sigma**2 * freedom / (count * self.temperature)

    def mixed(self, question: Question) -> list[Tensor]:
        """Return the estimate of ∂D/∂λ; one candidate's graph exists at a time.

        Raises:
            InputError: if ``sigma`` moves no weight, or a weight becomes infinite.
            NotFiniteError: if the inner loss of a candidate is not finite.
        """
        loss, params = question.loss, list(question.params)
        noise = self.perturbations(params, question.seed)
        direction, power = normalised(question.direction, question.per_task)
        scores, unit = noise.project_apart(direction)
        scores = scores - scores.mean(0)
        scores = scores / (noise.degrees_of_freedom * (self.sigma / unit) ** 2)
        if question.per_task:
            scores, power = scores * (power / power.amax()), power.amax()
        leaves = [loss.leaves[p] for p in question.wanted]
        totals = [torch.zeros_like(t, dtype=sum_dtype(t)) for t in leaves]
        losses = []
        for k in self.processes.share(noise.count):
            candidate = torch._foreach_add(params, noise.draw(k))
            if question.per_task:
                value, _, grads = loss.gradients(
                    candidate, question.wanted, False, scores[k]
                )
                torch._foreach_add_(totals, grads)
            else:
                value, _, grads = loss.gradients(candidate, question.wanted)
                add_scaled(totals, grads, scores[k])
            losses.append(value.reshape(scores.shape[1:]))
        known = torch.stack(losses) if losses else scores[:0]
        if self.process_group is not None:
            own, known = known, torch.zeros_like(scores)
            known[self.processes.rank :: self.processes.count] = own
            *totals, known = self.processes.sums([*totals, known])
        look = self.look_at_population(params, noise, known)
        if look is not None:
            kinds = [leaf.dtype for leaf in leaves]
            look.at_result(totals, direction, power, kinds, 1 / unit)
        return [
            in_turn(total, 1 / unit, power).to(leaf.dtype)
            for total, leaf in zip(totals, leaves, strict=True)
        ]

    def look_at_population(
        self,
        params: Sequence[Tensor],
        noise: Perturbations | PerturbationsOfTasks,
        losses: Tensor,
        temperature: float | None = None,
    ) -> "Look | None":
        """Notice a perturbation that is lost, losses that are not finite, saturation.

        Args:
            params: θ, with a leading task axis if there are several tasks.
            noise: the perturbations of ``params``.
            losses: ℓ_k of all candidates, shape (K,) or (K, tasks).
            temperature: τ, if the losses are weighted by softmax(−ℓ/τ).

        Returns:
            What looks at the hypergradient of this population; None if this is not one
            of the first ten calls or a tenth one, in which nothing is looked at.

        Raises:
            InputError: if no weight moves, or a weight becomes infinite.
            NotFiniteError: if a loss is not finite.

        Cost: one draw and seven sweeps over the weights. On a CUDA device, the numbers
        are judged when they have arrived, in a later call.
        """
        notices = self._notices
        if not notices.due():
            return None
        size = sum(param.numel() for param in params)
        perturbed = Perturbed(
            notices, f"sigma={self.sigma:g}", "sigma", params[0].dtype
        )
        step = noise.draw(0)
        moved = torch._foreach_add(list(params), step)
        length = self.sigma * size**0.5
        moves = displacement(moved, params, step, length)

        def judge(values: list[float]) -> None:
            moved, missed, size_of_weights, *flat = values
            perturbed.moves(moved, missed)
            perturbed.losses(flat)
            perturbed.far(size_of_weights, length)
            tasks = len(flat) // noise.count
            populations = [flat[task::tasks] for task in range(tasks)]
            for population in populations:
                perturbed.equal_losses(population, size // tasks)
            if temperature is not None:
                say_saturated(notices, populations, temperature)

        notices.look([*moves, losses], judge)
        return Look(perturbed)

    def __deepcopy__(self, memo: object) -> "EvoGrad":
        return self  # immutable, and a process group cannot be copied


@dataclass(frozen=True)
class Look:
    """A look at the hypergradient of a population."""

    perturbed: Perturbed

    def at_result(
        self,
        totals: Sequence[Tensor],
        direction: Sequence[Tensor],
        power: Tensor,
        kinds: Sequence[torch.dtype],
        factor: float = 1.0,
    ) -> None:
        """Notice a hypergradient that its dtype cannot hold.

        Args:
            totals: the hypergradient without ``power`` and ``factor``.
            direction: v without ``power``.
            power: the scale of v.
            kinds: the dtypes of the hypergradient.
            factor: one more factor of the result.
        """
        if not totals:
            return

        def judge(values: list[float]) -> None:
            top, longest, last = values
            self.perturbed.cotangent(longest)
            if math.isfinite(last):
                self.perturbed.result(top, [last, factor], kinds)

        found = [largest(totals), largest(direction), power]
        self.perturbed.notices.look(found, judge)
