"""Estimators of ∂D/∂λ, the term that every hypergradient rests on.

θ weights, λ hyperparameters, ℓ(θ, λ) inner loss, v = ∂L/∂θ_new the cotangent of the
updated weights. D = v·∇_θ ℓ(θ, λ) is the directional derivative of the inner loss
along v, and the hypergradient through one gradient step of rate η is −η ∂D/∂λ.

=================  =================================================  =================
``EvoGrad``        Σ_k (s_k − s̄) ∂_λ ℓ(θ + ε_k) / ((K − 1) σ²)        K passes
``Guided``         ‖v‖ [∂_λ ℓ(θ + h v̂) − ∂_λ ℓ(θ − h v̂)] / 2h         2 passes, or 1
``Exact``          ∂_λ (v·∇_θ ℓ)                                      double backward
=================  =================================================  =================

with s_k = v·ε_k and v̂ = v/‖v‖. A pass is one forward pass and one backward pass to λ.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from l2l_evograd.losses import InnerLoss
from l2l_evograd.perturbations import FAMILIES, SAMPLINGS, Perturbations, dot
from l2l_evograd.processes import Processes
from l2l_evograd.second_order import exact_mixed

if TYPE_CHECKING:  # not every build of torch has it
    from torch.distributed import ProcessGroup


@dataclass(frozen=True)
class EvoGrad:
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

    def mixed(
        self,
        loss: InnerLoss,
        params: Sequence[Tensor],
        direction: Sequence[Tensor],
        wanted: Sequence[int],
        seed: int,
        known: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """Return the estimate of ∂D/∂λ; see :meth:`Guided.mixed`."""
        del known
        perturbations = self.perturbations(params, seed)
        scores = perturbations.project(direction)
        scores = (scores - scores.mean()) / (
            perturbations.degrees_of_freedom * self.sigma**2
        )
        return weighted_gradients(
            loss, params, perturbations, scores, wanted, self.processes
        )

    def __deepcopy__(self, memo: object) -> "EvoGrad":
        return self  # nothing in it can change, and a process group has no copies


@dataclass(frozen=True)
class Guided:
    """A finite difference along the one direction that matters, v.

    Central: ∂D/∂λ ≈ ‖v‖ [∂_λ ℓ(θ + h v̂) − ∂_λ ℓ(θ − h v̂)] / 2h, error O(h²).
    Forward: ∂D/∂λ ≈ ‖v‖ [∂_λ ℓ(θ + h v̂) − ∂_λ ℓ(θ)] / h, error O(h), one pass fewer
    because ∂_λ ℓ(θ) is known from the inner step.

    Args:
        h: length of the step in weight space; 0.01 suits float32.
        scheme: ``"central"`` or ``"forward"``.

    Raises:
        ValueError: for an ``h`` that is not positive and finite, or another scheme.

    Cost:
        2 (central) or 1 (forward) forward passes and backward passes to λ; memory of
        one of them. Deterministic.

    Source: Liu, Simonyan, Yang, "DARTS", ICLR 2019, eq. 8, with h = 0.01 in place of
    their ε‖v‖.
    """

    h: float = 0.01
    scheme: str = "central"

    def __post_init__(self) -> None:
        """Refuse a step that is no step."""
        check_positive(self.h, "h")
        check_choice(self.scheme, ("central", "forward"), "scheme")

    def mixed(
        self,
        loss: InnerLoss,
        params: Sequence[Tensor],
        direction: Sequence[Tensor],
        wanted: Sequence[int],
        seed: int,
        known: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """Return the estimate of ∂D/∂λ for the inputs ``wanted``.

        Args:
            loss: ℓ.
            params: θ, detached.
            direction: v.
            wanted: positions of the inputs λ.
            seed: of the perturbations, where there are any.
            known: ∂ℓ/∂λ at θ for the inputs wanted, where the caller has it.
        """
        del seed
        norm = dot(direction, direction).sqrt()
        unit = torch.where(norm > 0, self.h / norm, torch.zeros_like(norm))
        if self.scheme == "central":
            low = _moved(params, direction, -unit)
            _, _, before = loss.gradients(low, wanted)
            distance = 2 * self.h
        else:
            before = list(known) if known is not None else []
            if known is None:
                _, _, before = loss.gradients(params, wanted)
            distance = self.h
        high = _moved(params, direction, unit)
        _, _, after = loss.gradients(high, wanted)
        scale = norm / distance
        return [
            (b - a) * scale.to(b.device, b.dtype)
            for a, b in zip(before, after, strict=True)
        ]


@dataclass(frozen=True)
class Exact:
    """Double backward through one inner step, the reference.

    ∂D/∂λ = ∂_λ (v·∇_θ ℓ(θ, λ)), by automatic differentiation.

    Cost:
        One forward pass, one backward pass with graph and one backward pass through
        it; the memory of a second-order graph of one step, however many steps there
        are, because each step is computed again when it is its turn. Attention then
        runs on the math kernel, and recurrent layers without cuDNN: the kernels that
        can be differentiated twice.
    """

    def mixed(
        self,
        loss: InnerLoss,
        params: Sequence[Tensor],
        direction: Sequence[Tensor],
        wanted: Sequence[int],
        seed: int,
        known: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """Return ∂D/∂λ; see :meth:`Guided.mixed`."""
        del seed, known
        return exact_mixed(loss, params, direction, wanted)[1]


Estimator = EvoGrad | Guided | Exact

_BY_NAME: dict[str, type[EvoGrad] | type[Guided] | type[Exact]] = {
    "evograd": EvoGrad,
    "guided": Guided,
    "exact": Exact,
}


def weighted_gradients(
    loss: InnerLoss,
    params: Sequence[Tensor],
    perturbations: Perturbations,
    weights: Tensor,
    wanted: Sequence[int],
    processes: Processes,
) -> list[Tensor]:
    """Return Σ_k weights_k ∂_λ ℓ(θ + ε_k), one candidate's graph at a time.

    The candidates are shared out among the processes.
    """
    totals = [torch.zeros_like(loss.leaves[position]) for position in wanted]
    for k in processes.share(perturbations.count):
        candidate = torch._foreach_add(list(params), perturbations.draw(k))
        _, _, grads = loss.gradients(candidate, wanted)
        add_scaled(totals, grads, weights[k])
    return processes.sums(totals)


def add_scaled(
    totals: Sequence[Tensor], terms: Sequence[Tensor], scale: Tensor
) -> None:
    """Add ``scale * terms`` to ``totals`` in place."""
    for total, term in zip(totals, terms, strict=True):
        total.add_(term * scale.to(term.device, term.dtype))


def resolve_estimator(estimator: object, update: str) -> Estimator:
    """Return the estimator meant by an object, a name or None.

    Raises:
        ValueError: for an unknown name, or one that does not go with ``update``.
        TypeError: for anything else.
    """
    check_choice(update, ("gradient", "evolution"), "update")
    if estimator is None:
        return EvoGrad() if update == "evolution" else Guided()
    if isinstance(estimator, str):
        check_choice(estimator, tuple(_BY_NAME), "estimator")
        estimator = _BY_NAME[estimator]()
    if not isinstance(estimator, EvoGrad | Guided | Exact):
        raise TypeError(
            f"expected estimator to be EvoGrad(...), Guided(...), Exact() or one of "
            f"the names {', '.join(_BY_NAME)}, got {estimator!r}"
        )
    if update == "evolution" and not isinstance(estimator, EvoGrad):
        raise ValueError(
            f"update='evolution' is the paper's Algorithm 1 and takes a population: "
            f"expected estimator=EvoGrad(...), got {estimator!r}; use "
            f"update='gradient' with this estimator"
        )
    return estimator


def check_positive(value: object, name: str) -> float:
    """Return ``value`` as a float if it is a positive, finite number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value) and value > 0:
            return float(value)
    raise ValueError(f"expected {name} to be positive and finite, got {value!r}")


def check_choice(value: object, choices: Sequence[str], name: str) -> None:
    """Refuse a name that is not among the choices."""
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"expected {name} to be one of {known}, got {value!r}")


def _moved(
    params: Sequence[Tensor], direction: Sequence[Tensor], step: Tensor
) -> list[Tensor]:
    return [
        p + v * step.to(p.device, p.dtype)
        for p, v in zip(params, direction, strict=True)
    ]
