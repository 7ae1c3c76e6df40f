"""Half precision: forward passes under autocast, and what has to change with them.

In bfloat16 nothing but the passes changes, and the steps of finite differences, which
its 8 bits must tell from none. float16 has few exponents: both losses are multiplied by
a scale, gradients divided by it again, and a step whose gradients overflowed is left
out while the scale is halved.
"""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from l2l_evograd.estimators import Estimator, EvoGrad, Guided

PRECISIONS = ("32", "bf16", "fp16")

# h of Guided at least. At the default 0.01 bfloat16's rounding can be a good part of
# the difference: on the small network of the noisy labels the lowest cosine of three
# batches to the exact hypergradient in float32 was 0.84, with 0.1 it was 0.98.
HALF_PRECISION_STEP = 0.1

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(
    precision: str, device: torch.device
) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which a model is called.

    Args:
        precision: one of :data:`PRECISIONS`; ``"32"``: nothing changes.
        device: where the model is.
    """
    if precision == "32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, _TYPES[precision])


def estimator_for(precision: str, estimator: Estimator | None) -> Estimator | None:
    """Return the estimator with a step that the precision can tell from none."""
    if precision == "32" or not isinstance(estimator, Guided):
        return estimator
    return dataclasses.replace(estimator, h=max(estimator.h, HALF_PRECISION_STEP))


class LossScale:
    """The factor S that keeps float16's gradients from vanishing.

    With both losses multiplied by S, an inner rate of η/S (for Algorithm 1 a
    temperature of S τ) gives the same virtual weights, and the gradients of θ and of λ
    are S times what they are without.

    Args:
        state: S and the number of steps since it changed, from a checkpoint.

    Attributes:
        value: S, 1,024 at first; halved where a gradient overflows, doubled after
            2,000 steps without.

    Source: Micikevicius et al., "Mixed Precision Training", ICLR 2018, section 3.2;
    PyTorch's ``GradScaler``, whose rules these are with a lower start.
    """

    PATIENCE = 2000

    def __init__(self, state: Sequence[float] = ()) -> None:
        self.value, steps = (*state,) if state else (1024.0, 0)
        self._steps = int(steps)
        self._overflow = False

    @property
    def state(self) -> list[float]:
        """What to put into a checkpoint."""
        return [self.value, float(self._steps)]

    def estimator(self, estimator: Estimator | None) -> Estimator | None:
        """Return the estimator for losses that are multiplied by S."""
        if not isinstance(estimator, EvoGrad):
            return estimator
        temperature = estimator.temperature * self.value
        return dataclasses.replace(estimator, temperature=temperature)

    def scaled(self, loss: Tensor) -> Tensor:
        """Return S times the loss; one that is no number becomes one.

        Its gradients stay none, so :meth:`unscale` finds them.
        """
        return torch.nan_to_num(loss, nan=0.0, posinf=1.0, neginf=-1.0) * self.value

    def unscale(self, parameters: Sequence[Tensor]) -> None:
        """Divide every ``.grad`` by S; drop all if one of them is not finite."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return
        for gradient in gradients:
            gradient.div_(self.value)
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        if not math.isfinite(float(norm)):
            self._overflow = True
        if self._overflow:
            for parameter in parameters:
                parameter.grad = None

    def update(self) -> None:
        """End a step: halve S after an overflow, double it when there was long none."""
        self._steps = 0 if self._overflow else self._steps + 1
        if self._overflow:
            self.value /= 2
        elif self._steps == self.PATIENCE:
            self.value, self._steps = 2 * self.value, 0
        self._overflow = False
