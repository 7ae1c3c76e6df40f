"""``Guided``: a finite difference along the cotangent of the updated weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from l2l_evograd.checks import check_choice, check_positive
from l2l_evograd.estimators.base import Estimator, Question
from l2l_evograd.estimators.judgement import Perturbed, displacement
from l2l_evograd.estimators.notices import Notices
from l2l_evograd.estimators.scaling import (
    in_turn,
    largest,
    lengths,
    normalised,
    power_below,
    times,
)


@dataclass(frozen=True)
class Guided(Estimator):
    """A finite difference along v, the only direction that the hypergradient needs.

    Central: ∂D/∂λ ≈ ‖v‖ [∂_λ ℓ(θ + h v̂) − ∂_λ ℓ(θ − h v̂)] / 2h, error O(h²).

    Forward: ∂D/∂λ ≈ ‖v‖ [∂_λ ℓ(θ + h v̂) − ∂_λ ℓ(θ)] / h, error O(h), one pass fewer
    because ∂_λ ℓ(θ) is known from the inner step.

    Args:
        h: length of the step in weight space. 0.01 suits float32.
        scheme: ``"central"`` or ``"forward"``.

    The result is linear in v over the whole range of its dtype. If h is lost in
    rounding, or the result is out of range, an error or a warning names what to change.

    Raises:
        ValueError: if ``h`` is not positive and finite, or ``scheme`` is unknown.

    Cost:
        2 (central) or 1 (forward) forward passes, and as many backward passes to λ. The
        memory is that of one such pass. The estimate is deterministic. In the first ten
        estimates and in every tenth, checks take seven sweeps over the weights.

    Source: Liu, Simonyan, Yang, "DARTS", ICLR 2019, eq. 8, with h = 0.01 in place of
    their ε‖v‖.
    """

    h: float = 0.01
    scheme: str = "central"
    _notices: Notices = field(
        default_factory=Notices, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_positive(self.h, "h")
        check_choice(self.scheme, ("central", "forward"), "scheme")

    @property
    def uses_known(self) -> bool:
        """Whether a known ∂ℓ/∂λ at θ saves one pass."""
        return self.scheme == "forward"

    def mixed(self, question: Question) -> list[Tensor]:
        """Return the estimate of ∂D/∂λ.

        Raises:
            InputError: if ``h`` moves no weight, or a weight becomes infinite.
            NotFiniteError: if the inner loss at an end of the difference is not finite.
        """
        loss, params, wanted = question.loss, list(question.params), question.wanted
        direction, power = normalised(question.direction, question.per_task)
        norm = lengths(direction, question.per_task)
        unit = torch.where(norm == 0, 0.0, self.h / norm)
        step = times(direction, unit)
        scale = norm / (2 * self.h if self.scheme == "central" else self.h)
        weights = None
        if question.per_task:
            # The losses of tasks have different scales, and are scaled before they are
            # differentiated, relative to the largest of the scales. The derivative of
            # one loss is scaled afterwards.
            most = power.amax()
            scale = scale * (power / most)
            largest_scale = power_below(scale.amax())
            weights, scale, power = scale / largest_scale, largest_scale, most
        ends = []
        if self.scheme == "central":
            low = torch._foreach_sub(params, step)
            end, _, before = loss.gradients(low, wanted, weights=weights)
            ends.append(end)
        elif question.known is not None:
            before = list(question.known)
        else:
            end, _, before = loss.gradients(params, wanted, weights=weights)
            ends.append(end)
        high = torch._foreach_add(params, step)
        end, _, after = loss.gradients(high, wanted, weights=weights)
        ends.append(end)
        differences = list(torch._foreach_sub(after, before))
        if self._notices.due():
            tasks = len(norm) if question.per_task else 1
            length = self.h * tasks**0.5
            self._look(
                [norm.sum() if question.per_task else norm, scale, power],
                [largest(differences), largest(after), *ends],
                displacement(high, params, step, length),
                length,
                params[0].dtype,
                differences,
            )
        return [in_turn(difference, scale, power) for difference in differences]

    def _look(
        self,
        factors: list[Tensor],
        found: list[Tensor],
        moves: list[Tensor],
        length: float,
        dtype: torch.dtype,
        differences: Sequence[Tensor],
    ) -> None:
        """Look at the numbers of one estimate.

        Args:
            factors: ‖v‖/p, and what the differences are multiplied by.
            found: the largest difference, the largest ∂ℓ/∂λ, and the losses.
            moves: what :func:`displacement` returns.
            length: of the step.
            dtype: of the weights.
            differences: of ∂ℓ/∂λ.
        """
        perturbed = Perturbed(self._notices, f"h={self.h:g}", "h", dtype)
        kinds = [difference.dtype for difference in differences]
        losses = [loss if loss.dim() == 0 else loss.sum() for loss in found[2:]]

        def judge(values: list[float]) -> None:
            norm, scale, power, top, size, *rest = values
            perturbed.cotangent(norm)
            if not (math.isfinite(norm) and math.isfinite(power)) or norm == 0:
                return  # the result is NaN as v is, or 0
            moved, missed, size_of_weights = rest[-3:]
            perturbed.moves(moved, missed)
            perturbed.losses(rest[: len(losses)])
            perturbed.far(size_of_weights, length)
            perturbed.difference(top, size, max(torch.finfo(k).eps for k in kinds))
            perturbed.result(top, [scale, power], kinds)

        self._notices.look([*factors, *found[:2], *losses, *moves], judge)
