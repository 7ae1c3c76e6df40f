"""``Guided``: a finite difference along the cotangent of the updated weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from l2l_evograd.checks import check_choice, check_positive
from l2l_evograd.estimators.base import Estimator, Question


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
        norm = _norm(question.direction)
        unit = torch.where(norm > 0, self.h / norm, torch.zeros_like(norm))
        step = [v * unit.to(v.device, v.dtype.to_real()) for v in question.direction]
        if self.scheme == "central":
            low = torch._foreach_sub(params, step)
            _, _, before = loss.gradients(low, wanted)
            distance = 2 * self.h
        else:
            before = list(question.known or ())
            if question.known is None:
                _, _, before = loss.gradients(params, wanted)
            distance = self.h
        high = torch._foreach_add(params, step)
        _, _, after = loss.gradients(high, wanted)
        scale = norm / distance
        return [
            (b - a) * scale.to(b.device, b.dtype.to_real())
            for a, b in zip(before, after, strict=True)
        ]


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of all tensors together, on the first one's device."""
    norms = torch._foreach_norm(list(tensors))
    return torch.linalg.vector_norm(
        torch.stack([norm.to(norms[0].device, norms[0].dtype) for norm in norms])
    )
