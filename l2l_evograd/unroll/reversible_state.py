"""Weights and velocities of SGD that can go back exactly the way they came."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from l2l_evograd.checks import InputError
from l2l_evograd.unroll.fixed_point import (
    InformationBuffer,
    scaled,
    to_fixed,
    to_float,
)

LARGEST_DENOMINATOR = 2**20


class ReversibleState:
    """θ and v as whole numbers of units of 2^−bits.

    Args:
        start: θ_0.
        bits: digits after the point.
        d: the denominator of the momentum.
        dampening: whether g + ξ θ is multiplied by 1 − n/d.
    """

    def __init__(
        self, start: Sequence[Tensor], bits: int, d: int, dampening: bool = False
    ) -> None:
        self.dampening = dampening
        self._bits = bits
        self._d = d
        self._dtypes = [weight.dtype for weight in start]
        # Sums of two such numbers still fit.
        self._range = 2.0 ** (62 - bits)
        largest = max(float(_largest(weight)) for weight in start)
        if not largest < self._range:
            raise self._out_of_range(largest, "before the first step")
        self._weights = [to_fixed(weight, bits) for weight in start]
        self._velocities = [torch.zeros_like(weight) for weight in self._weights]
        self._buffers = [InformationBuffer(weight, d) for weight in self._weights]

    @property
    def words(self) -> int:
        """The most stored words for a weight, see :class:`InformationBuffer`."""
        return max(buffer.words for buffer in self._buffers)

    def momentum(self, value: float) -> float:
        """Return the momentum n/d that is used for a value."""
        return numerator(value, self._d) / self._d

    def share(self, value: float) -> float:
        """Return the weight of g + ξ θ in v for a value of the momentum."""
        return 1 - self.momentum(value) if self.dampening else 1.0

    def weights(self) -> list[Tensor]:
        """Return θ in its own precision, as leaves that require grad."""
        return [self.weight(n).requires_grad_() for n in range(len(self._weights))]

    def weight(self, number: int) -> Tensor:
        """Return one weight tensor in its own precision."""
        return to_float(self._weights[number], self._bits, self._dtypes[number])

    def velocity(self, number: int) -> Tensor:
        """Return v of one weight tensor in the weight's precision."""
        return to_float(self._velocities[number], self._bits, self._dtypes[number])

    def advance(
        self,
        step: int,
        slopes: Sequence[Tensor],
        alpha: Sequence[float],
        beta: Sequence[float],
        xi: Sequence[float],
    ) -> None:
        """Make a step: v ← (n/d) v + g + ξ θ, θ ← θ − α v; see ``dampening``.

        Raises:
            InputError: if a number is not finite or leaves the range.
        """
        largest = []
        for number, slope in enumerate(slopes):
            push = self.push(number, slope, xi[number])
            push = push * self.share(beta[number]) if self.dampening else push
            largest.append(_largest(push))
            velocity, weight = self._velocities[number], self._weights[number]
            self._buffers[number].multiply(velocity, numerator(beta[number], self._d))
            velocity.add_(to_fixed(push, self._bits))
            weight.sub_(scaled(velocity, alpha[number]))
            unit = 2.0**-self._bits
            largest.append(_largest(velocity) * (unit * max(1.0, alpha[number])))
            largest.append(_largest(weight) * unit)
        first = largest[0]
        found = torch.stack([item.to(first) for item in largest]).tolist()
        if not all(item < self._range for item in found):
            worst = max(found, key=lambda item: math.inf if math.isnan(item) else item)
            raise self._out_of_range(worst, f"at step {step}")

    def undo_weights(self, alpha: Sequence[float]) -> None:
        """Take back θ ← θ − α v of the last step."""
        pairs = zip(self._weights, self._velocities, alpha, strict=True)
        for weight, velocity, a in pairs:
            weight.add_(scaled(velocity, a))

    def undo_velocity(
        self, slopes: Sequence[Tensor], beta: Sequence[float], xi: Sequence[float]
    ) -> None:
        """Take back v ← (n/d) v + g + ξ θ of the last step, after θ was taken back."""
        for number, slope in enumerate(slopes):
            velocity = self._velocities[number]
            push = self.push(number, slope, xi[number])
            push = push * self.share(beta[number]) if self.dampening else push
            velocity.sub_(to_fixed(push, self._bits))
            self._buffers[number].divide(velocity, numerator(beta[number], self._d))

    def unlike(self, start: Sequence[Tensor]) -> list[int]:
        """Return the weight tensors that are not as at the start, in every bit."""
        return [
            number
            for number, weight in enumerate(start)
            if self._velocities[number].any()
            or not self._buffers[number].empty
            or not torch.equal(self._weights[number], to_fixed(weight, self._bits))
        ]

    def push(self, number: int, slope: Tensor, xi: float) -> Tensor:
        """Return g + ξ θ for one weight tensor."""
        return slope.add(self.weight(number), alpha=xi) if xi else slope

    def _out_of_range(self, largest: float, when: str) -> InputError:
        if not math.isfinite(largest):
            return InputError(
                f"the run is no longer finite {when}; lower the learning rate or "
                f"check the data"
            )
        return InputError(
            f"weights, velocities and updates must stay below 2^(62 - bits) = "
            f"{self._range:g} for bits={self._bits}, got {largest:.3g} {when}; lower "
            f"the learning rate, or pass fewer bits"
        )


def numerator(momentum: float, d: int) -> int:
    """Return the whole number n for which n/d is nearest to a momentum."""
    return round(momentum * d)


def is_close(momentum: float, d: int) -> bool:
    """Return whether n/d is near to β, by 2 % of β and of 1 − β.

    Near 1 it is 1 − β that says how long a run remembers.
    """
    distance = abs(numerator(momentum, d) / d - momentum)
    return distance <= 0.02 * min(momentum, 1 - momentum)


def denominator_for(momenta: Sequence[float]) -> int:
    """Return the least power of two, from 2^8 to 2^20, near to all momenta."""
    d = 2**8
    while d < LARGEST_DENOMINATOR and not all(is_close(beta, d) for beta in momenta):
        d *= 2
    return d


def _largest(values: Tensor) -> Tensor:
    """Return the largest absolute value, a float; NaN if there is one."""
    if not values.numel():
        return torch.zeros((), device=values.device)
    low, high = values.aminmax()  # faster than a norm
    return torch.maximum(high, -low).to(torch.promote_types(values.dtype, torch.float))
