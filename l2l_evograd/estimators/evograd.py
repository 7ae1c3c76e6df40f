"""``EvoGrad``: the paper's population of perturbed models as an estimator."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from l2l_evograd.checks import check_choice, check_positive
from l2l_evograd.distributed import Processes
from l2l_evograd.estimators.base import Estimator, Question, add_scaled
from l2l_evograd.estimators.perturbations import (
    FAMILIES,
    SAMPLINGS,
    Perturbations,
    PerturbationsOfTasks,
)

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

    Cost:
        K forward passes and K backward passes to λ. Only one candidate's graph exists
        at a time. At K = 2 a single estimate is mostly noise: its cosine to the exact
        hypergradient falls with the square root of the number of weights.

        With N processes, each process makes at most ⌈K/N⌉ of the passes, and draws all
        perturbations. The processes exchange the seed, the K losses (for
        ``update="evolution"``) and one message of the size of λ. They exchange a
        message of the size of the weights only if the curvature of
        ``update="evolution"`` is wanted. If one process fails, the others wait for it
        until the group's timeout.

    Source: Bohdal, Yang, Hospedales, "EvoGrad", NeurIPS 2021, Algorithm 1.
    """

    random: ClassVar[bool] = True

    n_model_candidates: int = 2
    sigma: float = 1e-3
    temperature: float = 0.05
    noise: str = "rademacher"
    sampling: str = "plain"
    process_group: "ProcessGroup | None" = field(default=None, repr=False)

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
        """Return the estimate of ∂D/∂λ; one candidate's graph exists at a time."""
        loss, params = question.loss, list(question.params)
        noise = self.perturbations(params, question.seed)
        scores = noise.project(question.direction)
        scores = scores - scores.mean(0)
        scores = scores / (noise.degrees_of_freedom * self.sigma**2)
        totals = [torch.zeros_like(loss.leaves[p]) for p in question.wanted]
        for k in self.processes.share(noise.count):
            candidate = torch._foreach_add(params, noise.draw(k))
            if question.per_task:
                _, _, grads = loss.gradients(
                    candidate, question.wanted, False, scores[k]
                )
                torch._foreach_add_(totals, grads)
            else:
                _, _, grads = loss.gradients(candidate, question.wanted)
                add_scaled(totals, grads, scores[k])
        return self.processes.sums(totals)

    def __deepcopy__(self, memo: object) -> "EvoGrad":
        return self  # immutable, and a process group cannot be copied
