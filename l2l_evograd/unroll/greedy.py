"""``greedy``: hypergradients that look one step ahead, the control for long runs."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from l2l_evograd.bilevel.problem import Loss
from l2l_evograd.hyperparameters import Hyperparameters
from l2l_evograd.replay.inner_loss import or_zeros
from l2l_evograd.undo import or_nothing
from l2l_evograd.unroll.groups import GroupNames
from l2l_evograd.unroll.initial import Init
from l2l_evograd.unroll.losses import Losses
from l2l_evograd.unroll.preparation import prepare
from l2l_evograd.unroll.result import RunGradients, finished


@or_nothing
def greedy(
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
) -> RunGradients:
    """Return the sum of the hypergradients of all steps, each looking one step ahead.

    With u_t = ∇L(θ_t), and θ_{t−1} and v_{t−1} taken as constants, step t adds

        dα −= u_t·v_t,  dβ −= α u_t·v_{t−1},  dξ −= α u_t·θ_{t−1},
        dλ += ∂L(θ_t, λ)/∂λ − α ∂(u_t·g_t)/∂λ,

    and the first step adds u_1·dθ_1/ds. With ``dampening``, v_{t−1} becomes
    v_{t−1} − g_t − ξ θ_{t−1}, and α becomes α (1 − β) in dξ and dλ. This is
    hypergradient descent, and equals the other modes for one step. In a longer run it
    values a step by what it does to the loss at once, and not to the loss at the end;
    it serves as a control.

    Args:
        inner_loss: as for :func:`~l2l_evograd.unroll.unrolled_sgd`.
        outer_loss: likewise, and called after every step.
        params: likewise.
        hyperparameters: likewise.
        lr: likewise.
        momentum: likewise.
        weight_decay: likewise.
        steps: likewise.
        init: likewise.
        groups: likewise.
        clip: likewise.
        dampening: likewise.
        allow_unused: likewise.

    Returns:
        :class:`~l2l_evograd.unroll.RunGradients`; see
        :func:`~l2l_evograd.unroll.unrolled_sgd`.

    Raises:
        TypeError, ValueError, RuntimeError: as
            :func:`~l2l_evograd.unroll.unrolled_sgd`.

    Cost:
        For each step one gradient of the inner and one of the outer loss, and one
        Hessian-vector product if there are ``hyperparameters``. Memory: one step.

    Source: Micaelli, Storkey, NeurIPS 2021, the greedy baseline; Baydin et al., ICLR
        2018, equation 5, for the learning rate.
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
    )
    run, initial, schedule = prepared.run, prepared.initial, prepared.schedule
    learned = prepared.learned
    sums = {name: windows.sums(run.device) for name, windows in learned.items()}
    totals = [torch.zeros_like(tensor) for tensor in run.hyperparameters]
    scale: Tensor | None = None
    weights = initial.weights()
    velocity = [torch.zeros_like(weight) for weight in weights]
    for step in range(steps):
        alpha, beta, xi = (windows.at(step) for windows in schedule.values())
        twice = bool(run.hyperparameters) or (initial.learned and step == 0)
        shares = prepared.shares(beta)
        with torch.enable_grad():
            before = [weight.requires_grad_() for weight in weights]
            value = run.loss(step, before)
            slopes, _ = run.gradients_of(step, value, before, graph=twice)
            slopes = run.clipped(slopes)
        with torch.no_grad():
            old = velocity
            pushes = [
                g.add(w, alpha=x) for g, x, w in zip(slopes, xi, before, strict=True)
            ]
            velocity = [
                b * v + c * p
                for b, v, c, p in zip(beta, old, shares, pushes, strict=True)
            ]
            weights = [
                w - a * v for a, w, v in zip(alpha, before, velocity, strict=True)
            ]
        with torch.enable_grad():
            after = [weight.requires_grad_() for weight in weights]
            outer = run.outer_after(step, after)
            cotangents, direct = run.outer_slopes(outer, after)
            of_velocity = [-a * u for a, u in zip(alpha, cotangents, strict=True)]
            pushed = [c * p for c, p in zip(shares, of_velocity, strict=True)]
            wanted = [*before, *run.hyperparameters]
            pairs = [(g, p) for g, p in zip(slopes, pushed, strict=True)]
            pairs = [(g, p) for g, p in pairs if g.requires_grad]
            second = [torch.zeros_like(tensor) for tensor in wanted]
            if pairs and twice:
                found = torch.autograd.grad(
                    [g for g, _ in pairs],
                    wanted,
                    [p for _, p in pairs],
                    allow_unused=True,
                )
                second = or_zeros(found, wanted)
        with torch.no_grad():
            lost = pushes if dampening else [torch.zeros_like(p) for p in pushes]
            pairs_of = {
                "lr": ([-u for u in cotangents], velocity),
                "momentum": (
                    of_velocity,
                    [v - p for v, p in zip(old, lost, strict=True)],
                ),
                "weight_decay": (pushed, before),
            }
            for name, total in sums.items():
                factors = zip(*pairs_of[name], strict=True)
                total.add(step, [(u * factor).sum() for u, factor in factors])
            inside = second[len(before) :]
            for total_of, own, through in zip(totals, direct, inside, strict=True):
                total_of.add_(own).add_(through)
            if initial.learned and step == 0:
                scale = initial.gradient(
                    [
                        u + h + x * p
                        for u, h, x, p in zip(
                            cotangents, second, xi, pushed, strict=False
                        )
                    ]
                )
    return finished(
        run,
        weights,
        outer,
        totals,
        {name: total.shaped() for name, total in sums.items()},
        initial,
        scale,
    )
