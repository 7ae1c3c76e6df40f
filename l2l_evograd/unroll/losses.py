"""One inner loss for each step of a run."""

from typing import Protocol

from torch import Tensor

from l2l_evograd.bilevel.problem import Loss
from l2l_evograd.checks import InputError


class Losses(Protocol):
    """One loss for each step; a list, or anything with a length and ``[step]``."""

    def __len__(self) -> int:
        """Return the number of steps."""

    def __getitem__(self, step: int, /) -> Loss:
        """Return the loss of a step, counted from 0."""


def one_for_each_step(inner_loss: Loss | Losses, steps: int) -> Losses:
    """Return one loss for each of T steps.

    Raises:
        TypeError: if ``inner_loss`` is neither a function nor a sequence.
        InputError: if there are not ``steps`` losses.
    """
    if callable(inner_loss):
        return [inner_loss] * steps
    indexed = hasattr(inner_loss, "__len__") and hasattr(inner_loss, "__getitem__")
    if isinstance(inner_loss, Tensor) or not indexed:
        raise TypeError(
            f"expected inner_loss to be a function or a sequence of functions, got "
            f"{type(inner_loss).__name__}"
        )
    if len(inner_loss) != steps:
        raise InputError(
            f"expected one inner loss for each of {steps} steps, got {len(inner_loss)}"
        )
    return inner_loss
