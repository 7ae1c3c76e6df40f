"""``forward_mode``: tangents carried along a training run of SGD with momentum."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from l2l_evograd.bilevel.problem import Loss
from l2l_evograd.hyperparameters import Hyperparameters
from l2l_evograd.undo import or_nothing
from l2l_evograd.unroll.columns import LIMIT, Columns
from l2l_evograd.unroll.groups import GroupNames
from l2l_evograd.unroll.initial import Init
from l2l_evograd.unroll.losses import Losses
from l2l_evograd.unroll.preparation import prepare
from l2l_evograd.unroll.result import RunGradients
from l2l_evograd.unroll.tangents import Tangents


@or_nothing
def forward_mode(
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
    chunk_size: int | None = None,
    limit: int = LIMIT,
    allow_unused: bool = False,
) -> RunGradients:
    """Return dL(θ_T)/dλ through a run of SGD with momentum, without storing the run.

    For each scalar h, Z = dθ/dh and C = dv/dh start at 0 and are carried along:

        C ← β C + H Z + ξ Z + [h = β_t] v + [h = ξ_t] θ + ∂g/∂h,
        Z ← Z − α C − [h = α_t] v,

    with H = ∇²ℓ(θ) before the step, v before the step in the first line and after it in
    the second. With ``dampening``, all but β C and v are multiplied by 1 − β, and
    [h = β_t] brings v − g − ξ θ. The result is ∇L(θ_T)·Z + ∂L/∂h, the same number that
    :func:`~l2l_evograd.unroll.unrolled_sgd` returns.

    Args:
        inner_loss: as for :func:`~l2l_evograd.unroll.unrolled_sgd`.
        outer_loss: likewise.
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
        chunk_size: number of Hessian-vector products at once, by ``vmap``. None: all.
            With 1 there is no ``vmap``, for losses that cannot run under it.
        limit: the largest number of scalars to differentiate with respect to.
        allow_unused: as for :func:`~l2l_evograd.unroll.unrolled_sgd`.

    Returns:
        :class:`~l2l_evograd.unroll.RunGradients`; see
        :func:`~l2l_evograd.unroll.unrolled_sgd`.

    Raises:
        TypeError, ValueError, RuntimeError: as
            :func:`~l2l_evograd.unroll.unrolled_sgd`; ValueError for more scalars than
            ``limit``.

    Cost:
        For each step one gradient with graph, and one Hessian-vector product, about one
        gradient, for each h whose window has begun: less than T (N + 1) / 2 products
        for a quantity of N windows, T for one of λ. And the looks of
        :func:`~l2l_evograd.unroll.unrolled_sgd`. Memory: 2 numbers for each weight
        and each h, one step with graph, and ``chunk_size`` backward passes; the same
        for any T.

    Source: Micaelli, Storkey, NeurIPS 2021, forward-mode differentiation with
        hyperparameters shared over windows.
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
    columns = Columns(run.hyperparameters, initial, schedule, limit)
    tangents = Tangents(run, initial, schedule, columns, chunk_size)
    weights = initial.weights()
    velocity = [torch.zeros_like(weight) for weight in weights]
    of_velocity = tangents.zeros(weights)
    for step in range(steps):
        alpha, beta, xi = (windows.at(step) for windows in schedule.values())
        shares = prepared.shares(beta)
        entered = columns.entered(step)
        with torch.enable_grad():
            leaves = [weight.detach().requires_grad_() for weight in weights]
            slopes, parts = tangents.products(step, leaves)
        with torch.no_grad():
            for number, c in enumerate(of_velocity):
                c[:entered].mul_(beta[number])
                z = tangents.z[number][:entered]
                c[:entered].add_(z, alpha=shares[number] * xi[number])
        for chunk, products in parts:
            for c, product, share in zip(of_velocity, products, shares, strict=True):
                if product is not None:
                    c[chunk].add_(product, alpha=share)
        del leaves, parts
        with torch.no_grad():
            for number, (w, v, g) in enumerate(
                zip(weights, velocity, slopes, strict=True)
            ):
                c, z = of_velocity[number], tangents.z[number]
                push = g.add(w, alpha=xi[number])
                active = tangents.active("momentum", step, number)
                if active is not None:
                    c[active].add_(v - push if dampening else v)
                active = tangents.active("weight_decay", step, number)
                if active is not None:
                    c[active].add_(w, alpha=shares[number])
                v.mul_(beta[number]).add_(push, alpha=shares[number])
                z[:entered].sub_(c[:entered], alpha=alpha[number])
                active = tangents.active("lr", step, number)
                if active is not None:
                    z[active].sub_(v)
                w.sub_(v, alpha=alpha[number])
    with torch.enable_grad():
        return tangents.result([weight.requires_grad_() for weight in weights])
