"""Trainings that diverge end with one line, before their state is stored."""

import math

import torch
from torch import nn

from l2l_evograd.checks import NotFiniteError

_ADVICE = "lower the learning rates, or check the data"


def check_training_loss(loss: float, iteration: int) -> None:
    """Refuse a training loss that is not finite.

    Args:
        loss: the loss.
        iteration: number of finished iterations before it.

    Raises:
        NotFiniteError: if it is NaN or infinite.
    """
    if not math.isfinite(loss):
        raise NotFiniteError(
            f"the training diverged: its loss is {loss} in iteration {iteration + 1}; "
            f"{_ADVICE}"
        )


def check_weights(module: nn.Module) -> None:
    """Refuse weights that are not finite: a step was too long, after a finite loss.

    Args:
        module: the module with the weights; its buffers count as well.

    Raises:
        NotFiniteError: names the first such weight.

    Cost: a pass over the weights.
    """
    with torch.no_grad():
        for name, value in module.state_dict(keep_vars=True).items():
            numbers = isinstance(value, torch.Tensor) and value.is_floating_point()
            if numbers and not bool(value.isfinite().all()):
                raise NotFiniteError(
                    f"the training diverged: {name} is not finite; {_ADVICE}"
                )
