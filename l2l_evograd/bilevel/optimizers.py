"""Checks of the optimizers that a bilevel step is given."""

import functools
import inspect
import math
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from l2l_evograd.checks import InputError, as_number, shown
from l2l_evograd.finite import check_range


def check_optimizer(optimizer: object, name: str) -> None:
    """Raise an error if a step cannot be made with this optimizer.

    Args:
        optimizer: what was given.
        name: its name, for messages.

    Raises:
        TypeError: if it is not an optimizer.
        InputError: if its step needs a closure, as that of ``LBFGS`` does, or if a
            learning rate is not finite.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"expected {name} to be a torch.optim.Optimizer, got {shown(optimizer)}"
        )
    kind: Any = type(optimizer)
    if _needs_closure(kind):
        raise InputError(
            f"expected {name} to step without a closure, got "
            f"{type(optimizer).__name__}, which evaluates the loss several times a "
            f"step; use another optimizer, such as SGD or Adam"
        )
    for group in optimizer.param_groups:
        rate = group.get("lr", 0.0)
        # The value of a tensor on a device shows in what the optimizer moves to.
        if isinstance(rate, Tensor):
            if rate.device.type == "cuda" or rate.numel() != 1:
                continue
            rate = rate.item()
        number = as_number(rate)
        if number is None or not math.isfinite(number):
            raise InputError(
                f"expected the learning rates of {name} to be finite, got {shown(rate)}"
            )
        check_range(number, group["params"], f"the learning rate of {name}")


@functools.lru_cache(maxsize=64)
def _needs_closure(kind: Any) -> bool:
    closure = inspect.signature(kind.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def first_rate(optimizer: Optimizer) -> object:
    """Return the learning rate of an optimizer's first group.

    Raises:
        InputError: if it has none.
    """
    if "lr" not in optimizer.param_groups[0]:
        raise InputError(
            f"{type(optimizer).__name__} has no learning rate: expected lr, the rate "
            f"of the virtual step; pass lr="
        )
    return optimizer.param_groups[0]["lr"]
