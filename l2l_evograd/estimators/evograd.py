"""``EvoGrad``: the paper's population of perturbed models as an estimator."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from l2l_evograd.checks import check_choice, check_positive
from l2l_evograd.distributed import Processes
from l2l_evograd.estimators.base import Estimator, Question, add_scaled
from l2l_evograd.estimators.perturbations import FAMILIES, SAMPLINGS, Perturbations

if TYPE_CHECKING:  # not every build of torch has it
    from torch.distributed import ProcessGroup


@dataclass(frozen=True)
class EvoGrad(Estimator):
    """The paper's population of K perturbed models.

    Behind ``update="evolution"`` it is Algorithm 1. Behind ``update="gradient"`` the
    same population estimates ∂D/∂λ ≈ Σ_k (s_k − s̄) ∂_λ ℓ(θ + ε_k) / ((K − 1) σ²),
    which has expectation ∂D/∂λ as σ → 0; the temperature plays no part in it.

    Args:
        n_model_candidates: K, at least 2: the estimate of one candidate is exactly 0.
        sigma: σ, standard deviation of the perturbation of every weight.
        temperature: τ of w = softmax(−ℓ/τ), for ``update="evolution"``.
        noise: ``"rademacher"`` (±σ, as in the paper's experiments) or ``"gaussian"``.
        sampling: ``"plain"``, ``"antithetic"`` (pairs ±ε, K even) or ``"orthogonal"``.
        process_group: processes that share out the candidates: of N, number r evaluates
            those with k mod N = r. All make the same calls in the same order, with the
            same weights, λ, data and random state of torch, where the process_group of
            :func:`~l2l_evograd.bilevel_step` has different data in each; the seed of
            the perturbations is the first one's. All get the same result, that of one
            process. None: this process evaluates all candidates. Copies share the
            group; pickling refuses it.

    Raises:
        ValueError: for values outside these.
        TypeError: for a process_group that is none.

    Cost:
        K forward passes and K backward passes to λ; one candidate's graph at a time.
        At K = 2 a single estimate is noise for the most part: its cosine to the exact
        hypergradient falls with the square root of the number of weights.

        Of N processes, each makes at most ⌈K/N⌉ of the passes, and draws all
        perturbations. Between them go the seed, the K losses (for
        ``update="evolution"``) and one message of the size of λ; one of the size of
        the weights only where the curvature of ``update="evolution"`` is wanted. If
        one fails, the others wait for it until the group's timeout.

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
        """Refuse what cannot give an estimate."""
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
        Processes(self.process_group)  # refuses what is no group

    @property
    def processes(self) -> Processes:
        """Those that share out the candidates."""
        return Processes(self.process_group)

    def perturbations(self, params: Sequence[Tensor], seed: int) -> Perturbations:
        """Return the population's perturbations of ``params``, alike in all processes.

        Cost: a message of one number where there are several.
        """
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
        """η = σ²(K−1)/(Kτ): the gradient step that Algorithm 1 stands for.

        σ²/τ for antithetic noise, whose mean is exactly 0.
        """
        count = self.n_model_candidates
        freedom = count if self.sampling == "antithetic" else count - 1
        return self.sigma**2 * freedom / (count * self.temperature)

    def mixed(self, question: Question) -> list[Tensor]:
        """Return the estimate of ∂D/∂λ, one candidate's graph at a time."""
        loss, params = question.loss, list(question.params)
        noise = self.perturbations(params, question.seed)
        scores = noise.project(question.direction)
        scores = (scores - scores.mean()) / (noise.degrees_of_freedom * self.sigma**2)
        totals = [torch.zeros_like(loss.leaves[p]) for p in question.wanted]
        for k in self.processes.share(noise.count):
            candidate = torch._foreach_add(params, noise.draw(k))
            _, _, grads = loss.gradients(candidate, question.wanted)
            add_scaled(totals, grads, scores[k])
        return self.processes.sums(totals)

    def __deepcopy__(self, memo: object) -> "EvoGrad":
        return self  # nothing in it can change, and a process group has no copies
