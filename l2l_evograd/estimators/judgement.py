"""What makes the numbers of a finite difference or a population unsound.

A perturbation can be lost when it is added to the weights, or overflow; the losses at
the perturbed weights can be infinite, or differ by less than their rounding; one
candidate can get all of the weight; and the result can be out of the range of its
dtype. Each of these gives an error or a warning that says what to change.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from l2l_evograd.checks import InputError, NotFiniteError
from l2l_evograd.estimators.notices import Notices
from l2l_evograd.estimators.scaling import lengths

# Share of a perturbation that may be lost in rounding without a word.
_LOST = 0.5

# How much longer than 1, and than all weights together, a perturbation may be.
_LONG = 1000.0

# Number of weights from which on no two candidates are the same.
_FEW = 16

# Effective number of candidates 1/Σ w² from which on one candidate has all the weight.
_ALONE = 1.01


def displacement(
    moved: Sequence[Tensor],
    params: Sequence[Tensor],
    step: Sequence[Tensor],
    length: float,
) -> list[Tensor]:
    """Return how far the weights moved, by how much they missed, and how long they are.

    Args:
        moved: θ + step as it was rounded.
        params: θ.
        step: what was added.
        length: the expected length of the step, the unit of the result.

    Returns:
        ‖(θ + step) − θ‖ and ‖(θ + step) − θ − step‖, with the sum as it was rounded,
        and ‖θ‖, in units of ``length``.

    Cost: seven sweeps over the weights.
    """
    tiny = max(torch.finfo(t.dtype).tiny for t in params)
    unit = max(length, tiny)  # a shorter step is lost anyway
    realised = torch._foreach_sub(list(moved), list(params))
    missed = torch._foreach_sub(realised, list(step))
    return [
        lengths(torch._foreach_div(realised, unit)),
        lengths(torch._foreach_div(missed, unit)),
        lengths(torch._foreach_div(list(params), unit)),
    ]


# Number of looks in a row from which a difference without digits is told.
_IN_A_ROW = 3


@dataclass(frozen=True)
class Perturbed:
    """The judgement of numbers at weights θ + perturbation.

    Args:
        notices: where the estimator says what it has to say.
        setting: the setting of the perturbation, such as ``"sigma=1e-3"``.
        name: its name, ``"sigma"``.
        dtype: the dtype of the weights.
    """

    notices: Notices
    setting: str
    name: str
    dtype: torch.dtype

    def cotangent(self, top: float) -> None:
        """Notice a gradient of the outer loss that half precision rounds to 0."""
        if top == 0 and self.dtype.itemsize < 4:
            self.notices.say(
                "cotangent",
                f"the gradient of the outer loss with respect to the updated weights "
                f"is exactly 0 in {self._kind}, and so is the hypergradient; if the "
                f"outer loss depends on the weights, scale it up, as "
                f"torch.amp.GradScaler does",
            )

    def moves(self, moved: float, missed: float) -> None:
        """Judge a step by what :func:`displacement` returns.

        Raises:
            InputError: if no weight moves, or a weight becomes infinite.
        """
        if not math.isfinite(moved):
            raise InputError(
                f"expected weights that stay finite when they are perturbed, got an "
                f"overflow of {self._kind} with {self.setting}; lower {self.name}, or "
                f"check the weights"
            )
        if moved == 0:
            raise InputError(
                f"expected a perturbation that moves the weights, but with "
                f"{self.setting} it is lost in rounding: no weight of {self._kind} "
                f"changes, and the hypergradient would be 0; raise {self.name}, or use "
                f"weights in a higher precision"
            )
        if missed > _LOST * max(moved, 1.0):
            self.notices.say(
                "lost",
                f"more than half of the perturbation with {self.setting} is lost when "
                f"it is added to the weights in {self._kind}, so that hypergradients "
                f"may be wrong; raise {self.name}, or use weights in a higher "
                f"precision",
            )

    def far(self, size: float, length: float) -> None:
        """Notice a step that is much longer than the weights.

        Args:
            size: ‖θ‖ in units of ``length``.
            length: of the step.
        """
        if length > _LONG and size < 1 / _LONG:
            self.notices.say(
                "long",
                f"the perturbation with {self.setting} is more than {_LONG:.0f} times "
                f"as long as all weights together, so that the hypergradient is that "
                f"of other weights; lower {self.name}",
            )

    def losses(self, losses: Sequence[float]) -> None:
        """Judge the losses at the perturbed weights.

        Raises:
            NotFiniteError: if one is NaN or infinite.
        """
        for loss in losses:
            if not math.isfinite(loss):
                raise NotFiniteError(
                    f"expected the inner loss at the perturbed weights to be finite, "
                    f"got {loss} with {self.setting}; lower {self.name} or the "
                    f"learning rate, or check the data"
                )

    def equal_losses(self, losses: Sequence[float], size: int) -> None:
        """Notice candidates that cannot be told apart.

        Args:
            losses: of the candidates.
            size: number of weights. A few weights may get the same signs twice.
        """
        alike = len(losses) > 1 and len(set(losses)) == 1
        if alike and losses[0] != 0 and size > _FEW:
            self.notices.say(
                "equal",
                f"all candidates with {self.setting} have the same inner loss, to the "
                f"last bit: their differences, and with them the hypergradient, are "
                f"lost in rounding, or the loss does not depend on the weights there; "
                f"raise {self.name}, or use a higher precision",
            )

    def difference(self, difference: float, size: float, eps: float) -> None:
        """Notice a difference of ∂ℓ/∂λ that is not more than its rounding.

        Args:
            difference: the largest entry of the difference.
            size: the largest entry of ∂ℓ/∂λ itself.
            eps: of the dtype of ∂ℓ/∂λ.
        """
        lost = size > 0 and difference <= 2 * eps * size
        # Once is no sign of a fault: little differs near an optimum, and nothing where
        # the weights are 0 and λ is a weight decay.
        if self.notices.in_a_row("difference", lost) >= _IN_A_ROW:
            self.notices.say(
                "difference",
                f"the derivatives of the inner loss with respect to the "
                f"hyperparameters do not differ between the ends of the finite "
                f"difference with {self.setting}, or by no more than rounding: the "
                f"hypergradient is 0 or noise. Raise {self.name}, or use a higher "
                f"precision; if the hyperparameters and the weights do not act on each "
                f"other, 0 is right",
            )

    def result(
        self, mantissa: float, factors: Sequence[float], kinds: Sequence[torch.dtype]
    ) -> None:
        """Notice a hypergradient that its dtype cannot hold.

        Args:
            mantissa: the largest entry without the factors.
            factors: what it is multiplied by.
            kinds: the dtypes of the result.
        """
        dtype = max(kinds, key=lambda kind: torch.finfo(kind).tiny)
        found = torch.finfo(dtype)
        if mantissa == 0 or not math.isfinite(mantissa):
            return
        exponent = math.log2(mantissa) + sum(map(math.log2, factors))
        if not math.log2(found.tiny) <= exponent < math.log2(found.max):
            way = "down" if exponent > 0 else "up"
            verb = "overflows" if exponent > 0 else "underflows"
            self.notices.say(
                "range",
                f"the hypergradient {verb}: its largest entry is about "
                f"1e{exponent * math.log10(2):+.0f}, and "
                f"{str(dtype).removeprefix('torch.')} holds numbers from "
                f"{found.tiny:.0e} to {found.max:.0e}; scale the outer loss {way}, and "
                f"the learning rate of the hyperparameters the other way",
            )

    @property
    def _kind(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def saturation(losses: Sequence[float], temperature: float) -> float:
    """Return the effective number of candidates 1/Σ w², w = softmax(−ℓ/τ)."""
    least = min(losses)
    weights = [math.exp(-(loss - least) / temperature) for loss in losses]
    return math.fsum(weights) ** 2 / math.fsum(w * w for w in weights)


def say_saturated(
    notices: Notices, populations: Sequence[Sequence[float]], temperature: float
) -> None:
    """Notice a population in which one candidate has all of the weight.

    Args:
        notices: where it is said.
        populations: the losses of the candidates, one list for each task.
        temperature: τ.
    """
    effective = min(saturation(losses, temperature) for losses in populations)
    if effective < _ALONE:
        # No numbers that change from step to step: Python shows equal warnings once.
        notices.say(
            "saturated",
            f"the effective number of candidates 1/Σw² is {effective:.2g} of "
            f"{len(populations[0])}: one candidate has all of the weight "
            f"w = softmax(−ℓ/τ), so that the hypergradient is close to 0. The losses "
            f"differ by more than the temperature of {temperature:g}; raise "
            f"temperature, or lower sigma",
        )
