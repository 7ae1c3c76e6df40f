"""ARUBA's statistics b and g of all weights, and the rates √(b / g)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from l2l_evograd.checks import InputError, NotFiniteError
from l2l_evograd.hyperparameters import References

#: What may share a rate.
RATES = ("coordinate", "parameter", "one")


class Statistics(nn.Module):
    """Buffers of sums over many tasks, in single precision at least.

    Args:
        tensors: the sums.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        for place, tensor in enumerate(tensors):
            self.register_buffer(str(place), tensor)

    @property
    def tensors(self) -> list[Tensor]:
        """The sums, in the order of the weights."""
        return list(self.buffers())

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> "Statistics":
        """Move or convert the sums, as ``to()`` asks, but not to half precision."""

        def applied(tensor: Tensor) -> Tensor:
            new: Any = fn(tensor)
            wanted = at_least_single(new.dtype)
            return new if new.dtype == wanted else tensor.to(new.device, wanted)

        super()._apply(applied, recurse)
        return self


def at_least_single(dtype: torch.dtype) -> torch.dtype:
    """Return ``dtype``, or single precision in place of half precision."""
    return torch.promote_types(dtype, torch.float32)


def filled(weights: Sequence[Tensor], value: float) -> Statistics:
    """Return statistics with one value for each of the weights."""
    sums = [
        torch.full_like(w, value, dtype=at_least_single(w.dtype), requires_grad=False)
        for w in weights
    ]
    return Statistics(sums)


def rates_of(kind: str, b: Sequence[Tensor], g: Sequence[Tensor]) -> list[Tensor]:
    """Return √(b / g), with sums over what shares a rate.

    Args:
        kind: one of :data:`RATES`.
        b: one tensor for each parameter.
        g: likewise.

    Returns:
        One tensor of its shape for each parameter.
    """
    pairs = list(zip(b, g, strict=True))
    if kind == "coordinate":
        return [(own_b / own_g).sqrt() for own_b, own_g in pairs]
    if kind == "parameter":
        return [(x.sum() / y.sum()).sqrt().expand_as(x) for x, y in pairs]
    sums = [torch.stack([part.sum() for part in parts]).sum() for parts in (b, g)]
    rate = (sums[0] / sums[1]).sqrt()
    return [rate.expand_as(own_b) for own_b in b]


def priors(lr: float, zeta: float) -> tuple[float, float]:
    """Return ε² and ζ², with ε = lr ζ.

    Raises:
        InputError: if they are not numbers of single precision.
    """
    # Products, because a power of a float raises an error where it overflows.
    found = (lr * zeta) * (lr * zeta), zeta * zeta
    known = torch.finfo(torch.float32)
    if not all(known.tiny <= prior <= known.max for prior in found):
        raise InputError(
            f"expected zeta² and (lr · zeta)² to be numbers of single precision, got "
            f"{found[1]:.3g} and {found[0]:.3g}; choose another zeta"
        )
    return found


def check_task(moved: Sequence[Tensor], squares: Sequence[Tensor]) -> None:
    """Refuse what would spoil the statistics for all later tasks.

    Args:
        moved: how far the weights moved, one tensor for each parameter.
        squares: their sums of squared gradients.

    Raises:
        NotFiniteError: if one of these, or its square, is not finite.
    """
    sums = [part.square().sum() for part in moved] + [part.sum() for part in squares]
    if not torch.stack([part.to(sums[0].device) for part in sums]).sum().isfinite():
        raise NotFiniteError(
            "expected finite weights and squared gradients of the task, got others; "
            "lower lr or check the data, and leave this learner out"
        )


@dataclass
class Task:
    """What a learner keeps of its task.

    Attributes:
        initial: φ, on the graph of the original.
        start: φ when the learner was made.
        squares: the sum of squared gradients.
        b, g: the statistics when the learner was made, for ARUBA++.
        plus: c of ARUBA++.
        used: positions of the weights that had a gradient.
        collected: whether the statistics have it already.
    """

    initial: References
    start: list[Tensor]
    squares: list[Tensor]
    b: list[Tensor]
    g: list[Tensor]
    plus: float
    used: set[int] = field(default_factory=set)
    collected: bool = False
