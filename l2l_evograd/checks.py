"""Checks of arguments and losses. Errors say what is wrong and what to do."""

import cmath
import math
import numbers
from collections.abc import Sequence

from torch import Tensor


class InputError(ValueError):
    """The user's input cannot be used. The message says what to give instead.

    The command line prints it in one line, without a traceback.
    """


def check_positive(value: object, name: str) -> float:
    """Return ``value`` as a float if it is a positive, finite number.

    Raises:
        InputError: if it is not.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and number > 0:
            return number
    raise InputError(f"expected {name} to be positive and finite, got {value!r}")


def check_not_negative(value: object, name: str) -> float:
    """Return ``value`` as a float if it is a finite number of at least 0.

    Raises:
        InputError: if it is not.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and number >= 0:
            return number
    raise InputError(f"expected {name} to be at least 0 and finite, got {value!r}")


def check_count(value: object, name: str, least: int = 1) -> int:
    """Return ``value`` if it is a whole number of at least ``least``.

    Raises:
        InputError: if it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(
            f"expected {name} to be a whole number of at least {least}, got {value!r}"
        )
    return value


def check_seed(value: object, name: str = "seed") -> int:
    """Return ``value`` if it is a whole number.

    Raises:
        TypeError: if it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"expected {name} to be a whole number, got {value!r}")
    return value


def check_choice(value: object, choices: Sequence[str], name: str) -> None:
    """Raise an error if ``value`` is not one of ``choices``.

    Raises:
        InputError: if it is not; names the choices.
    """
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise InputError(f"expected {name} to be one of {known}, got {value!r}")


def check_loss(loss: object, name: str = "the inner loss") -> Tensor:
    """Return ``loss`` if it is a finite scalar tensor.

    Raises:
        TypeError: if it is not a tensor.
        InputError: if it is not a scalar, or not finite.
    """
    if not isinstance(loss, Tensor):
        raise TypeError(
            f"expected {name} to be a scalar tensor, got {type(loss).__name__}; "
            f"return the loss itself, not a number taken from it"
        )
    if loss.numel() != 1:
        raise InputError(
            f"expected {name} to be a scalar, got a tensor of shape "
            f"{tuple(loss.shape)}; reduce it with .mean() or .sum()"
        )
    value = loss.item()
    if not cmath.isfinite(value):
        raise InputError(
            f"expected {name} to be finite, got {value}; lower the learning rate or "
            f"check the data"
        )
    return loss


def check_differentiable(loss: Tensor) -> Tensor:
    """Return ``loss`` if it is on an autograd graph.

    Raises:
        InputError: if it is not.
    """
    if not loss.requires_grad:
        raise InputError(
            "the inner loss does not require grad: expected a loss computed with "
            "gradients enabled; remove torch.no_grad(), torch.inference_mode() and "
            ".detach() around it"
        )
    return loss
