"""What all functions that differentiate a training run return."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from l2l_evograd.finite import HYPERGRADIENT, check_tensors
from l2l_evograd.unroll.initial import Initial
from l2l_evograd.unroll.schedule import steps_per_window
from l2l_evograd.unroll.training_run import TrainingRun


@dataclass(frozen=True)
class TrainedRun:
    """The trained weights of a run, and its losses.

    Attributes:
        params: the weights after the run, detached, by name.
        inner_losses: ℓ at each step, before the update, detached, shape (steps,).
        outer_loss: L after the run, detached.
        steps: T.
    """

    params: dict[str, Tensor]
    inner_losses: Tensor
    outer_loss: Tensor
    steps: int

    @property
    def inner_loss(self) -> Tensor:
        """ℓ before the first step, detached."""
        return self.inner_losses[0]


@dataclass(frozen=True)
class RunGradients(TrainedRun):
    """The gradients of the outer loss after a training run, and the trained weights.

    What :class:`TrainedRun` has, and:

    Attributes:
        gradients: dL/dλ, in the structure of ``hyperparameters``: a dict for a dict, a
            tensor for a tensor, else a list; None without hyperparameters.
        schedule: dL/d(lr), dL/d(momentum) and dL/d(weight_decay), by name and in the
            shape given, for those that were given as tensors. The gradient of a window
            is the sum over its steps; :meth:`per_step` returns the mean.
        init: dL/ds as ``{"scale": ...}``; empty without ``init``.
    """

    gradients: Any
    schedule: dict[str, Tensor]
    init: dict[str, Tensor]

    def per_step(self) -> dict[str, Tensor]:
        """Return ``schedule`` with each window divided by its number of steps."""
        found = {}
        for name, gradient in self.schedule.items():
            count = gradient.shape[0] if gradient.dim() else 1
            lengths = torch.tensor(steps_per_window(count, self.steps)).to(gradient)
            shape = (-1, *[1] * (gradient.dim() - 1)) if gradient.dim() else ()
            found[name] = gradient / lengths.reshape(shape)
        return found


def finished(
    run: TrainingRun,
    weights: Sequence[Tensor],
    outer: Tensor,
    gradients: Sequence[Tensor],
    schedule: dict[str, Tensor],
    initial: Initial,
    scale: Tensor | None,
) -> RunGradients:
    """Put together what all modes return.

    Raises:
        NotFiniteError: if one of the gradients or of the weights is not finite.
    """
    check_tensors(
        {
            "the weights after the run": weights,
            HYPERGRADIENT: gradients,
            **{f"the gradient of {name}": [grad] for name, grad in schedule.items()},
            "the gradient of init": [scale],
        },
        "the run diverged, or a loss has no finite derivative; lower the learning rate "
        "or clip=, or check the losses",
    )
    named = zip(run.names, weights, strict=True)
    return RunGradients(
        gradients=run.structured(gradients),
        schedule=schedule,
        init=initial.shaped(scale),
        params={name: weight.detach() for name, weight in named},
        inner_losses=torch.stack(run.values),
        outer_loss=outer.detach(),
        steps=run.steps,
    )
