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
    """A loss or a gradient is NaN or infinite, as after a training that diverged."""


def as_number(value: object) -> float | None:
    """Return a real number of Python or NumPy as a float, None for anything else.

    Truth values are no numbers.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        return float(value)
    except OverflowError:  # a whole number that no float holds
        return math.inf


def shown(value: object) -> str:
    """Return a value as it is shown in a message, on one line and not too long."""
    if isinstance(value, Tensor) and value.numel() > 1:
        return f"a tensor of shape {tuple(value.shape)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def check_positive(value: object, name: str) -> float:
    """Return ``value`` as a float if it is a positive, finite number.

    Raises:
        InputError: if it is not.
    """
    number = as_number(value)
    if number is not None and math.isfinite(number) and number > 0:
        return number
    raise InputError(f"expected {name} to be positive and finite, got {shown(value)}")


def check_rate(value: object, name: str = "lr") -> float:
    """Return a positive, finite number, or a tensor of one element, as a float.

    Raises:
        InputError: if it is neither, or a tensor that requires grad.
    """
    if isinstance(value, Tensor) and value.numel() == 1:
        if value.requires_grad:
            raise InputError(
                f"expected {name} to be a number, got a tensor that requires grad; use "
                f"EvoGradMetaOptimizer(lr=...) for learned rates"
            )
        value = value.item()
    return check_positive(value, name)


def check_not_negative(value: object, name: str) -> float:
    """Return ``value`` as a float if it is a finite number of at least 0.

    Raises:
        InputError: if it is not.
    """
    number = as_number(value)
    if number is not None and math.isfinite(number) and number >= 0:
        return number
    raise InputError(f"expected {name} to be at least 0 and finite, got {shown(value)}")


def as_whole(value: object) -> int | None:
    """Return a whole number of Python or NumPy as an int, None for others."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        return None
    return int(value)


def check_flag(value: object, name: str) -> bool:
    """Return ``value`` if it is True or False.

    Raises:
        TypeError: if it is not.
    """
    if not isinstance(value, bool):
        raise TypeError(f"expected {name} to be True or False, got {shown(value)}")
    return value


def check_count(value: object, name: str, least: int = 1) -> int:
    """Return ``value`` if it is a whole number of at least ``least``.

    Raises:
        InputError: if it is not.
    """
    number = as_whole(value)
    if number is None or number < least:
        raise InputError(
            f"expected {name} to be a whole number of at least {least}, got "
            f"{shown(value)}"
        )
    return number


def check_seed(value: object, name: str = "seed") -> int:
    """Return ``value`` if it is a whole number.

    Raises:
        TypeError: if it is not.
    """
    number = as_whole(value)
    if number is None:
        raise TypeError(f"expected {name} to be a whole number, got {shown(value)}")
    return number


def check_callable(value: object, name: str, takes: str) -> None:
    """Raise an error if ``value`` is not a function.

    Args:
        value: what was given.
        name: its name.
        takes: how it is called, for the message.

    Raises:
        TypeError: if it is not.
    """
    if not callable(value):
        raise TypeError(
            f"expected {name} to be a function, called {takes}, got {shown(value)}"
        )


def check_generator(value: object) -> None:
    """Raise an error if ``value`` is neither None nor a generator of torch.

    Raises:
        TypeError: if it is not.
    """
    if value is not None and not isinstance(value, torch.Generator):
        raise TypeError(
            f"expected generator to be a torch.Generator, got {type(value).__name__}"
        )


def check_module(value: object, name: str = "model") -> None:
    """Raise an error if ``value`` is not a module.

    Raises:
        TypeError: if it is not.
    """
    if not isinstance(value, torch.nn.Module):
        raise TypeError(
            f"expected {name} to be a torch.nn.Module, got {type(value).__name__}"
        )


def check_choice(value: object, choices: Sequence[str], name: str) -> None:
    """Raise an error if ``value`` is not one of ``choices``.

    Raises:
        InputError: if it is not; names the choices.
    """
    if not any(isinstance(value, type(known)) and value == known for known in choices):
        known = ", ".join(repr(choice) for choice in choices)
        raise InputError(f"expected {name} to be one of {known}, got {shown(value)}")


def check_loss(
    loss: object,
    name: str = "the inner loss",
    wait: bool = False,
    look: bool = True,
) -> Tensor:
    """Return ``loss`` if it is a finite scalar tensor of real numbers.

    A value on a CUDA device is looked at when it has arrived, in a later call, so that
    the check does not wait for the device.

    Args:
        loss: the loss.
        name: its name, for messages.
        wait: whether to wait for the value of a CUDA device.
        look: whether to look at the value.

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
    if not loss.is_floating_point():
        raise InputError(
            f"expected {name} to be a real number in floating point, got {loss.dtype}; "
            f"convert it with .float(), or take .real of a complex one"
        )
    if not look:
        return loss
    if wait or loss.device.type != "cuda":
        _check_finite(loss.item(), name)
        return loss
    ARRIVING.check()
    if not torch.cuda.is_current_stream_capturing():
        ARRIVING.send(loss.detach(), name)
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

    def send(self, value: Tensor, name: str) -> None:
        """Send a value from its CUDA device, without waiting for it."""
        self.add(*_sent(value), name)

    def wait(self) -> None:
        """Wait for all values and check them, as before a checkpoint is written.

        Raises:
            NotFiniteError: if one is not finite. The others are then forgotten.
        """
        for value in self._values:
            value.event.synchronize()
        self.check()

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
