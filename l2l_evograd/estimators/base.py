"""The interface that all estimators of ∂D/∂λ implement."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from l2l_evograd.estimators.scaling import spread, wide
from l2l_evograd.replay.inner_loss import InnerLoss


@dataclass(frozen=True)
class Question:
    """The arguments of one estimate of ∂D/∂λ, where D = v·∇_θ ℓ(θ, λ).

    Attributes:
        loss: ℓ.
        params: θ, detached.
        direction: v.
        wanted: positions of λ among the inputs of ``loss``.
        seed: seed of the perturbations, for estimators that draw any; one for each
            task if ``per_task``.
        known: ∂ℓ/∂λ at θ for the wanted inputs, if the caller already has it.
        per_task: whether ``params`` and ``direction`` have a leading task axis and
            ``loss`` returns one loss per task. Then D is the sum over the tasks, and
            each task has its own step length or perturbations.
    """

    loss: InnerLoss
    params: Sequence[Tensor]
    direction: Sequence[Tensor]
    wanted: Sequence[int]
    seed: int | Sequence[int] = 0
    known: Sequence[Tensor] | None = None
    per_task: bool = False


class Estimator(ABC):
    """Base class of the estimators of ∂D/∂λ.

    Attributes:
        exact: whether autograd's graph of the inner step gives the same answer.
        random: whether the estimator draws random numbers.
        uses_known: whether a known ∂ℓ/∂λ at θ saves the estimator one pass.
    """

    exact: ClassVar[bool] = False
    random: ClassVar[bool] = False

    @property
    def uses_known(self) -> bool:
        """Whether a known ∂ℓ/∂λ at θ saves the estimator one pass."""
        return False

    @abstractmethod
    def mixed(self, question: Question) -> list[Tensor]:
        """Return ∂D/∂λ, one tensor for each wanted input."""


def dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Return Σ_i left_i · right_i over two lists of tensors, as a real scalar.

    Half precision is added up in float32.
    """
    terms = [
        (a.conj() * b).real.sum()
        if a.is_complex()
        else (a * b).sum(dtype=wide(a.dtype))
        for a, b in zip(left, right, strict=True)
    ]
    return torch.stack([term.to(terms[0].device) for term in terms]).sum()


def add_scaled(
    totals: Sequence[Tensor], terms: Sequence[Tensor], scale: Tensor
) -> None:
    """Add ``scale * terms`` to ``totals`` in place, in the precision of ``totals``.

    Args:
        totals: the sums so far.
        terms: what to add, of the same shapes.
        scale: one factor, or one for each task.
    """
    for total, term in zip(totals, terms, strict=True):
        total.add_(term.to(total.dtype) * spread(scale, total))
