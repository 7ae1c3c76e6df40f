"""What an estimator of ∂D/∂λ is, and what it is asked."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from l2l_evograd.replay.inner_loss import InnerLoss


@dataclass(frozen=True)
class Question:
    """∂D/∂λ is wanted, D = v·∇_θ ℓ(θ, λ).

    Attributes:
        loss: ℓ.
        params: θ, detached.
        direction: v.
        wanted: positions of the inputs λ of ``loss``.
        seed: of the perturbations, where there are any.
        known: ∂ℓ/∂λ at θ for the inputs wanted, where somebody has it.
    """

    loss: InnerLoss
    params: Sequence[Tensor]
    direction: Sequence[Tensor]
    wanted: Sequence[int]
    seed: int = 0
    known: Sequence[Tensor] | None = None


class Estimator(ABC):
    """An estimate of ∂D/∂λ, and what it needs.

    Attributes:
        exact: whether autograd's graph of the inner step gives the same answer.
        random: whether it draws random numbers.
        uses_known: whether ∂ℓ/∂λ at θ saves it a pass.
    """

    exact: ClassVar[bool] = False
    random: ClassVar[bool] = False

    @property
    def uses_known(self) -> bool:
        """See above."""
        return False

    @abstractmethod
    def mixed(self, question: Question) -> list[Tensor]:
        """Return ∂D/∂λ, one tensor for each input wanted."""


def dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Return Σ_i left_i · right_i over two lists of tensors, as a real scalar."""
    terms = [
        (a.conj() * b).real.sum() if a.is_complex() else (a * b).sum()
        for a, b in zip(left, right, strict=True)
    ]
    return torch.stack([term.to(terms[0].device) for term in terms]).sum()


def add_scaled(
    totals: Sequence[Tensor], terms: Sequence[Tensor], scale: Tensor
) -> None:
    """Add ``scale * terms`` to ``totals`` in place."""
    for total, term in zip(totals, terms, strict=True):
        total.add_(term * scale.to(term.device, term.dtype.to_real()))
