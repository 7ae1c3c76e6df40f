"""One step of several optimizers from the mean of several gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Held(Optimizer):
    """The parameters of an optimizer, which takes no step.

    For functions that end in the step of an optimizer, where their gradients alone are
    wanted.

    Args:
        optimizer: whose parameters.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(parameters_of(optimizer), {})

    # torch overloads it for closures that return a loss; this one calls none.
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Leave everything as it is."""


def step_from_mean(
    optimizers: Sequence[Optimizer],
    calls: Sequence[Callable[[Sequence[Optimizer]], None]],
) -> None:
    """Let each optimizer take one step from the mean of several gradients.

    Args:
        optimizers: all of them.
        calls: each puts gradients into ``.grad`` of their parameters, in place of
            what is there, and lets the optimizers that it is given take their steps.

    Cost: memory of one gradient more than a single call.
    """
    held = [Held(optimizer) for optimizer in optimizers]
    parameters = [p for optimizer in optimizers for p in parameters_of(optimizer)]
    sums: list[Tensor | None] = [None] * len(parameters)
    for call in calls:
        call(held)
        for position, parameter in enumerate(parameters):
            if parameter.grad is None:
                continue
            total = sums[position]
            if total is None:
                sums[position] = parameter.grad.clone()
            else:
                total.add_(parameter.grad)
            parameter.grad = None
    with torch.no_grad():
        for parameter, total in zip(parameters, sums, strict=True):
            parameter.grad = None if total is None else total / len(calls)
    for optimizer in optimizers:
        optimizer.step()


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """Return all parameters of an optimizer."""
    return [p for group in optimizer.param_groups for p in group["params"]]
