"""Half precision: forward passes under autocast, and the changes that they require.

In bfloat16, only the passes and the steps of finite differences change. The steps must
be large enough for the 8 bits of bfloat16. float16 has a small range of exponents, so
both losses are multiplied by a scale and the gradients are divided by it. If the
gradients overflow, the optimizer step is left out and the scale is halved.
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
# The precisions that need no scale of the losses.
UNSCALED = ("32", "bf16")

# The smallest h of Guided in half precision. With the default of 0.01, the rounding of
# bfloat16 can be a large part of the difference. On the small network of the
# noisy-labels experiment, the lowest cosine to the exact float32 hypergradient over
# three batches was 0.84 with h = 0.01 and 0.98 with h = 0.1.
HALF_PRECISION_STEP = 0.1

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(
    precision: str, device: torch.device
) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which a model is called.

    Args:
        precision: one of :data:`PRECISIONS`; ``"32"``: no autocast.
        device: device of the model.
    """
    if precision == "32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, _TYPES[precision])


def estimator_for(precision: str, estimator: Estimator | None) -> Estimator | None:
    """Return the estimator with a step that is large enough for the precision."""
    if precision == "32" or not isinstance(estimator, Guided):
        return estimator
    return dataclasses.replace(estimator, h=max(estimator.h, HALF_PRECISION_STEP))


class LossScale:
    """The factor S that keeps float16's gradients from vanishing.

    Both losses are multiplied by S. With an inner rate of η/S (for Algorithm 1, a
    temperature of S τ), the virtual weights are the same as without S. The gradients
    of θ and λ are S times as large as without S.

    Args:
        state: S and the number of steps since it changed, from a checkpoint.

    Attributes:
        value: S. It starts at 1,024, is halved when a gradient overflows, and is
            doubled after 2,000 steps without an overflow.

    Source: Micikevicius et al., "Mixed Precision Training", ICLR 2018, section 3.2;
    PyTorch's ``GradScaler``, which has the same rules but starts with a larger S.
    """

    PATIENCE = 2000

    def __init__(self, state: Sequence[float] = ()) -> None:
        self.value, steps = (*state,) if state else (1024.0, 0)
        self._steps = int(steps)
        self._overflow = False

    @property
    def state(self) -> list[float]:
        """The state to store in a checkpoint."""
        return [self.value, float(self._steps)]

    def estimator(self, estimator: Estimator | None) -> Estimator | None:
        """Return the estimator to use with losses that are multiplied by S."""
        if not isinstance(estimator, EvoGrad):
            return estimator
        temperature = estimator.temperature * self.value
        return dataclasses.replace(estimator, temperature=temperature)

    def scaled(self, loss: Tensor) -> Tensor:
        """Return S times the loss, with a finite value if the loss is not finite.

        The gradients of such a loss are still not finite, so :meth:`unscale` finds
        them.
        """
        return torch.nan_to_num(loss, nan=0.0, posinf=1.0, neginf=-1.0) * self.value

    def unscale(self, parameters: Sequence[Tensor]) -> None:
        """Divide every ``.grad`` by S; remove all if one of them is not finite."""
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
        """End a step: halve S after an overflow, double it after 2,000 good steps."""
        self._steps = 0 if self._overflow else self._steps + 1
        if self._overflow:
            self.value /= 2
        elif self._steps == self.PATIENCE:
            self.value, self._steps = 2 * self.value, 0
        self._overflow = False
