"""``Guided``: a finite difference along the cotangent of the updated weights."""

from dataclasses import dataclass

import torch
from torch import Tensor

from l2l_evograd.checks import check_choice, check_positive
from l2l_evograd.estimators.base import Estimator, Question, lengths, spread


@dataclass(frozen=True)
class Guided(Estimator):
    """A finite difference along v, the only direction that the hypergradient needs.

    Central: ∂D/∂λ ≈ ‖v‖ [∂_λ ℓ(θ + h v̂) − ∂_λ ℓ(θ − h v̂)] / 2h, error O(h²).
    Forward: ∂D/∂λ ≈ ‖v‖ [∂_λ ℓ(θ + h v̂) − ∂_λ ℓ(θ)] / h, error O(h), one pass fewer
    because ∂_λ ℓ(θ) is known from the inner step.

    Args:
        h: length of the step in weight space. 0.01 suits float32.
        scheme: ``"central"`` or ``"forward"``.

    Raises:
        ValueError: if ``h`` is not positive and finite, or ``scheme`` is unknown.

    Cost:
        2 (central) or 1 (forward) forward passes, and as many backward passes to λ. The
        memory is that of one such pass. The estimate is deterministic.

    Source: Liu, Simonyan, Yang, "DARTS", ICLR 2019, eq. 8, with h = 0.01 in place of
    their ε‖v‖.
    """

    h: float = 0.01
    scheme: str = "central"

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_positive(self.h, "h")
        check_choice(self.scheme, ("central", "forward"), "scheme")

    @property
    def uses_known(self) -> bool:
        """Whether a known ∂ℓ/∂λ at θ saves one pass."""
        return self.scheme == "forward"

    def mixed(self, question: Question) -> list[Tensor]:
        """Return the estimate of ∂D/∂λ."""
        loss, params, wanted = question.loss, list(question.params), question.wanted
        norm = lengths(question.direction, question.per_task)
        unit = torch.where(norm > 0, self.h / norm, torch.zeros_like(norm))
        step = [v * spread(unit, v) for v in question.direction]
        scale = norm / (2 * self.h if self.scheme == "central" else self.h)
        # The losses of tasks have different scales, and are scaled before they are
        # differentiated. The derivative of one loss is scaled afterwards.
        weights = scale if question.per_task else None
        if self.scheme == "central":
            low = torch._foreach_sub(params, step)
            _, _, before = loss.gradients(low, wanted, weights=weights)
        elif question.known is not None:
            before = list(question.known)
        else:
            _, _, before = loss.gradients(params, wanted, weights=weights)
        high = torch._foreach_add(params, step)
        _, _, after = loss.gradients(high, wanted, weights=weights)
        differences = torch._foreach_sub(after, before)
        if question.per_task:
            return list(differences)
        return [d * spread(scale, d) for d in differences]
