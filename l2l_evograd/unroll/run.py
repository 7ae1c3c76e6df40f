"""``run_sgd``: a training run alone, with a schedule that was found."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from l2l_evograd.bilevel.problem import Loss
from l2l_evograd.finite import check_tensors
from l2l_evograd.hyperparameters import Hyperparameters
from l2l_evograd.undo import or_nothing
from l2l_evograd.unroll.groups import GroupNames
from l2l_evograd.unroll.initial import Init
from l2l_evograd.unroll.losses import Losses
from l2l_evograd.unroll.preparation import prepare
from l2l_evograd.unroll.result import TrainedRun


@or_nothing
def run_sgd(
    inner_loss: Loss | Losses,
    outer_loss: Loss,
    params: Mapping[str, Tensor] | nn.Module,
    hyperparameters: Hyperparameters | Mapping[str, Tensor] | None = None,
    *,
    lr: float | Tensor,
    momentum: float | Tensor = 0.0,
    weight_decay: float | Tensor = 0.0,
    steps: int,
    init: Init | None = None,
    groups: GroupNames | None = None,
    clip: float | None = None,
    dampening: bool = False,
    allow_unused: bool = False,
) -> TrainedRun:
    """Make the run of SGD with momentum, without differentiating through it.

    It is the run of :func:`~l2l_evograd.unroll.unrolled_sgd`. A schedule that was
    learned on some seeds is to be judged by this function on others: other initial
    weights in ``params`` and other batches in ``inner_loss``.

    Args:
        inner_loss: as for :func:`~l2l_evograd.unroll.unrolled_sgd`.
        outer_loss: likewise.
        params: likewise.
        hyperparameters: likewise.
        lr: likewise, and so are the others.
        momentum: likewise.
        weight_decay: likewise.
        steps: likewise. A schedule of N windows fits any number of steps from N on.
        init: likewise.
        groups: likewise.
        clip: likewise.
        dampening: likewise.
        allow_unused: likewise.

    Returns:
        :class:`~l2l_evograd.unroll.TrainedRun`.

    Raises:
        TypeError, ValueError: as :func:`~l2l_evograd.unroll.unrolled_sgd`; a run that
            diverges names the step.

    Cost:
        For each step one gradient. Memory: one step.
    """
    prepared = prepare(
        inner_loss,
        outer_loss,
        params,
        hyperparameters,
        {"lr": lr, "momentum": momentum, "weight_decay": weight_decay},
        steps,
        init,
        groups,
        allow_unused,
        clip,
        dampening,
        differentiated=False,
    )
    run, schedule = prepared.run, prepared.schedule
    weights = prepared.initial.weights()
    velocity = [torch.zeros_like(weight) for weight in weights]
    for step in range(steps):
        alpha, beta, xi = (windows.at(step) for windows in schedule.values())
        with torch.enable_grad():
            leaves = [weight.detach().requires_grad_() for weight in weights]
            value = run.loss(step, leaves)
            slopes = run.clipped(run.gradients_of(step, value, leaves, graph=False)[0])
        del value, leaves
        shares = prepared.shares(beta)
        with torch.no_grad():
            for number, (w, v, g) in enumerate(
                zip(weights, velocity, slopes, strict=True)
            ):
                push = g.add(w, alpha=xi[number])
                v.mul_(beta[number]).add_(push, alpha=shares[number])
                w.sub_(v, alpha=alpha[number])
    with torch.no_grad():
        outer = run.outer(weights)
    check_tensors({"the weights after the run": weights})
    return TrainedRun(
        params=dict(zip(run.names, weights, strict=True)),
        inner_losses=torch.stack(run.values),
        outer_loss=outer.detach(),
        steps=steps,
    )
