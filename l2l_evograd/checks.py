"""Checks of arguments and losses. Errors say what is wrong and what to do."""

import cmath
import math
import numbers
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class InputError(ValueError):
    """The user's input cannot be used. The message says what to give instead.

    The command line prints it in one line, without a traceback.
    """


class NotFiniteError(InputError):
    """A loss is NaN or infinite, as after a training that diverged."""


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

    A value on a CUDA device is looked at when it has arrived, in a later call, so that
    the check does not wait for the device.

    Raises:
        TypeError: if it is not a tensor.
        InputError: if it is not a scalar.
        NotFiniteError: if it or an earlier loss is not finite.
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
    if loss.device.type != "cuda":
        _check_finite(loss.item(), name)
        return loss
    ARRIVING.check()
    if not torch.cuda.is_current_stream_capturing():
        ARRIVING.add(*_sent(loss.detach()), name)
    return loss


def _check_finite(value: complex, name: str) -> None:
    if not cmath.isfinite(value):
        raise NotFiniteError(
            f"expected {name} to be finite, got {value}; lower the learning rate or "
            f"check the data"
        )


def _sent(value: Tensor) -> tuple[Tensor, Any]:
    """Return a copy on the CPU, and the event after which it holds the value."""
    copy = torch.empty_like(value, device="cpu", pin_memory=True)
    copy.copy_(value, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return copy, event


class _Value(NamedTuple):
    copy: Tensor
    event: Any
    name: str


class Arriving:
    """Values of losses on their way from a device, in the order of their sending.

    Args:
        most: number of values from which the oldest is waited for.
    """

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._values: deque[_Value] = deque()

    def add(self, copy: Tensor, event: Any, name: str) -> None:
        """Add a copy that holds its value as soon as ``event`` has happened."""
        self._values.append(_Value(copy, event, name))

    def check(self) -> None:
        """Check the values that have arrived.

        Raises:
            NotFiniteError: if one is not finite. The others are then forgotten.
        """
        while self._values:
            copy, event, name = self._values[0]
            if not event.query():
                if len(self._values) < self._most:
                    return
                event.synchronize()
            self._values.popleft()
            value = copy.item()
            if not cmath.isfinite(value):
                self._values.clear()
                _check_finite(value, f"{name} of an earlier step")


ARRIVING = Arriving()


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
