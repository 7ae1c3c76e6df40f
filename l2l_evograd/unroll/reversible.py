"""``reversible_sgd``: a training run that is taken back step by step, bit for bit."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from l2l_evograd.bilevel.problem import Loss
from l2l_evograd.checks import InputError, check_count
from l2l_evograd.hyperparameters import Hyperparameters
from l2l_evograd.undo import or_nothing
from l2l_evograd.unroll.backwards import Backwards
from l2l_evograd.unroll.groups import GroupNames
from l2l_evograd.unroll.initial import Init
from l2l_evograd.unroll.losses import Losses
from l2l_evograd.unroll.preparation import prepare
from l2l_evograd.unroll.result import RunGradients, finished
from l2l_evograd.unroll.reversible_state import (
    LARGEST_DENOMINATOR,
    ReversibleState,
    denominator_for,
    numerator,
)
from l2l_evograd.unroll.schedule import Windows


@or_nothing
def reversible_sgd(
    inner_loss: Loss | Losses,
    outer_loss: Loss,
    params: Mapping[str, Tensor] | nn.Module,
    hyperparameters: Hyperparameters | Mapping[str, Tensor] | None = None,
    *,
    lr: float | Tensor,
    momentum: float | Tensor,
    weight_decay: float | Tensor = 0.0,
    steps: int,
    init: Init | None = None,
    groups: GroupNames | None = None,
    clip: float | None = None,
    dampening: bool = False,
    bits: int | None = None,
    denominator: int | None = None,
    allow_unused: bool = False,
) -> RunGradients:
    """Return dL(θ_T)/dλ through a run of SGD with momentum that is taken back.

    θ and v are whole numbers of units of 2^−bits. The momentum is n/d, with n nearest
    to β d, and the digits that v loses are kept, so that every step can be undone
    exactly. From dθ = ∇L(θ_T), dv = 0 and dλ = ∂L/∂λ, for t = T .. 1:

        dα −= dθ·v,  θ ← θ + α v,  g = ∇ℓ_t(θ),  v ← (v − g − ξ θ) / β,
        dv ← dv − α dθ,  dβ += dv·v,  dξ += dv·θ,
        dθ ← dθ + ∇_θ(g·dv) + ξ dv,  dλ ← dλ + ∇_λ(g·dv),  dv ← β dv.

    With ``dampening``, g + ξ θ is multiplied by 1 − n/d on both ways, and dv·v becomes
    dv·(v − g − ξ θ).

    At the end θ and v must be what the run began with, in every bit. The result is
    that of :func:`~l2l_evograd.unroll.unrolled_sgd` at momentum n/d, up to rounding of
    v by d 2^−bits. This is an absolute size: velocities much smaller than 1 lose
    digits, so do not scale a loss down and the learning rate up.

    Args:
        inner_loss: as for :func:`~l2l_evograd.unroll.unrolled_sgd`, and the same
            function each time: random numbers from torch's global generators and
            buffers of a module are restored, all else must not change.
        outer_loss: likewise.
        params: likewise.
        hyperparameters: likewise.
        lr: likewise.
        momentum: likewise, but above 0.
        weight_decay: likewise.
        steps: likewise.
        init: likewise.
        groups: likewise.
        clip: likewise.
        dampening: likewise.
        bits: digits after the point. None: 48 if a weight is float64, else 40. All
            weights and velocities, and α v and g + ξ θ, must stay below 2^(62 − bits).
        denominator: d, from 2 to 2^20. A larger one represents β more finely, and
            rounds more. None: 256, or the least power of two for which n/d differs from
            every β by at most 2 % of β and of 1 − β.
        allow_unused: as for :func:`~l2l_evograd.unroll.unrolled_sgd`.

    Returns:
        :class:`~l2l_evograd.unroll.RunGradients`; see
        :func:`~l2l_evograd.unroll.unrolled_sgd`.

    Raises:
        TypeError, ValueError, RuntimeError: as
            :func:`~l2l_evograd.unroll.unrolled_sgd`; ValueError for a momentum near 0,
            or a run that leaves the range (names the step).
        Unreversed: a RuntimeError, if the run could not be taken back: an inner loss
            gave another gradient the second time.

    Cost:
        For each step two gradients with graph and one Hessian-vector product, whatever
        the number of hyperparameters, and the looks of
        :func:`~l2l_evograd.unroll.unrolled_sgd`. Memory: about 24 bytes and 4 tensors
        for each weight, and for each 4 bytes every 32 / log2(d/n) steps; one step with
        graph; the buffers that a step changed, and, if it drew random numbers, 5 kB.

    Source: Maclaurin, Duvenaud, Adams, ICML 2015, Algorithms 2 and 3, in PyTorch's
        convention.
    """
    given = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    prepared = prepare(
        inner_loss,
        outer_loss,
        params,
        hyperparameters,
        given,
        steps,
        init,
        groups,
        allow_unused,
        clip,
        dampening,
        remember=True,
    )
    run, schedule = prepared.run, prepared.schedule
    d = _denominator(schedule["momentum"], denominator)
    if bits is None:
        wide = any(weight.dtype == torch.float64 for weight in run.given)
        bits = 48 if wide else 40
    check_count(bits, "bits")
    if bits > 60:
        raise InputError(f"expected bits to be at most 60, got {bits}")
    state = ReversibleState(prepared.initial.weights(), bits, d, prepared.dampening)
    for step in range(steps):
        with torch.enable_grad():
            weights = state.weights()
            slopes = [slope.detach() for slope in run.slopes(step, weights)]
        state.advance(step, slopes, *(w.at(step) for w in schedule.values()))
    with torch.enable_grad():
        weights = state.weights()
        outer = run.outer(weights)
        cotangents, gradients = run.outer_slopes(outer, weights)
    # Copies, because the originals may share memory, and nothing else holds them then.
    gradients = [gradient.clone() for gradient in gradients]
    cotangents = [cotangent.clone() for cotangent in cotangents]
    back = Backwards(prepared, state, cotangents, gradients)
    with run.backwards():
        for step in reversed(range(steps)):
            back.step(step)
    back.check()
    initial = prepared.initial
    return finished(
        run,
        weights,
        outer,
        gradients,
        {name: total.shaped() for name, total in back.sums.items()},
        initial,
        initial.gradient(cotangents) if initial.learned else None,
    )


def _denominator(windows: Windows, given: int | None) -> int:
    if given is None:
        d = denominator_for(windows.values())
    else:
        d = check_count(given, "denominator", least=2)
        if d > LARGEST_DENOMINATOR:
            raise InputError(f"expected denominator to be at most 2^20, got {d}")
    for value in windows.values():
        if numerator(value, d) < 1:
            raise InputError(
                f"a step without momentum cannot be taken back: expected every "
                f"momentum to be at least 1/{2 * d}, got {value:g}; use unrolled_sgd, "
                f"or forward_mode for few hyperparameters"
            )
        if value < 1 and numerator(value, d) == d:
            raise InputError(
                f"a momentum of {value:g} is nearest to {d}/{d} = 1, which is another "
                f"run; pass a larger denominator, up to 2^20, or leave it out"
            )
    return d
