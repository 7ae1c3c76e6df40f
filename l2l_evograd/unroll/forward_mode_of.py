"""``forward_mode_of``: tangents through a training run of any optimizer."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap

from l2l_evograd.bilevel.problem import Loss
from l2l_evograd.checks import NotFiniteError
from l2l_evograd.estimators.exact import load_formulas
from l2l_evograd.hyperparameters import Hyperparameters
from l2l_evograd.undo import or_nothing
from l2l_evograd.unroll.columns import LIMIT, Columns
from l2l_evograd.unroll.groups import GroupNames
from l2l_evograd.unroll.initial import Init
from l2l_evograd.unroll.losses import Losses
from l2l_evograd.unroll.preparation import prepare
from l2l_evograd.unroll.result import RunGradients
from l2l_evograd.unroll.tangents import Tangents

State = dict[str, Tensor]

# Takes a weight, its gradient, its state, the optimizer's values and the step.
Rule = Callable[[Tensor, Tensor, State, State, int], tuple[Tensor, State]]


@or_nothing
def forward_mode_of(
    rule: Rule,
    inner_loss: Loss | Losses,
    outer_loss: Loss,
    params: Mapping[str, Tensor] | nn.Module,
    hyperparameters: Hyperparameters | Mapping[str, Tensor] | None = None,
    *,
    schedule: Mapping[str, float | Tensor],
    state: Sequence[str] = (),
    steps: int,
    init: Init | None = None,
    groups: GroupNames | None = None,
    clip: float | None = None,
    chunk_size: int | None = None,
    limit: int = LIMIT,
    allow_unused: bool = False,
) -> RunGradients:
    """Return dL(θ_T)/dλ through a run of an optimizer that is given as a function.

    With the step (θ, s) ← Φ(θ, g, s, values), the tangents are carried along by

        (dθ/dh, ds/dh) ← JΦ · (dθ/dh, H dθ/dh + ∂g/∂h, ds/dh, dvalues/dh).

    For example Adam, with ``state=("m", "v")``::

        def adam(weight, gradient, state, values, step):
            m = values["beta1"] * state["m"] + (1 - values["beta1"]) * gradient
            v = values["beta2"] * state["v"] + (1 - values["beta2"]) * gradient**2
            first = m / (1 - values["beta1"] ** (step + 1))
            second = v / (1 - values["beta2"] ** (step + 1))
            new = weight - values["lr"] * first / (second + 1e-16).sqrt()
            return new, {"m": m, "v": v}

    Args:
        rule: Φ, called ``rule(weight, gradient, state, values, step)`` for each weight
            tensor; returns the new weight and the new state. It must not change its
            arguments, and must be differentiable where it is used: √v is not at 0.
        inner_loss: as for :func:`~l2l_evograd.unroll.unrolled_sgd`.
        outer_loss: likewise.
        params: likewise.
        hyperparameters: likewise.
        schedule: ``values`` by name, each at least 0; the rule gets those of its step
            as tensors of no dimension. Numbers, tensors and their shapes are as for
            ``lr`` of :func:`~l2l_evograd.unroll.unrolled_sgd`.
        state: the names of s; each begins as zeros like the weight.
        steps: T; the rule gets the steps 0 .. T − 1.
        init: as for :func:`~l2l_evograd.unroll.unrolled_sgd`.
        groups: likewise.
        clip: likewise.
        chunk_size: as for :func:`~l2l_evograd.unroll.forward_mode`.
        limit: likewise.
        allow_unused: as for :func:`~l2l_evograd.unroll.unrolled_sgd`.

    Returns:
        :class:`~l2l_evograd.unroll.RunGradients`; its ``schedule`` has the names of
        ``schedule``. See :func:`~l2l_evograd.unroll.unrolled_sgd`.

    Raises:
        TypeError, ValueError, RuntimeError: as
            :func:`~l2l_evograd.unroll.forward_mode`; TypeError if the rule returns
            something else, ValueError if its derivative is not finite.

    Cost:
        As :func:`~l2l_evograd.unroll.forward_mode`, with 1 + (number of states) numbers
        for each weight and each scalar, and as many again within a step.

    Source: Micaelli, Storkey, NeurIPS 2021, forward-mode differentiation, for any
        differentiable optimizer.
    """
    prepared = prepare(
        inner_loss,
        outer_loss,
        params,
        hyperparameters,
        schedule,
        steps,
        init,
        groups,
        allow_unused,
        clip,
    )
    run, initial, windows = prepared.run, prepared.initial, prepared.schedule
    load_formulas()
    columns = Columns(run.hyperparameters, initial, windows, limit)
    tangents = Tangents(run, initial, windows, columns, chunk_size)
    weights = initial.weights()
    states = [{name: torch.zeros_like(w) for name in state} for w in weights]
    of_states = [{name: torch.zeros_like(z) for name in state} for z in tangents.z]
    for step in range(steps):
        with torch.enable_grad():
            leaves = [weight.detach().requires_grad_() for weight in weights]
            slopes, parts = tangents.products(step, leaves)
        entered = columns.entered(step)
        of_slopes = [z.new_zeros(entered, *z.shape[1:]) for z in tangents.z]
        for chunk, products in parts:
            for target, product in zip(of_slopes, products, strict=True):
                if product is not None:
                    target[chunk] = product
        del leaves, parts
        values = {name: w.at(step) for name, w in windows.items()}
        with torch.no_grad():
            for number, weight in enumerate(weights):
                units = {
                    name: _unit(tangents.active(name, step, number), entered, weight)
                    for name in windows
                }
                primals = (
                    weight,
                    slopes[number],
                    states[number],
                    {n: weight.new_tensor(v[number]) for n, v in values.items()},
                )
                stepped = _stepped(rule, primals, step)
                z = tangents.z[number][:entered]
                before = {n: s[:entered] for n, s in of_states[number].items()}
                of_weight, of_state = vmap(
                    functools.partial(_tangent, rule, step, primals)
                )(z, of_slopes[number], before, units)
                weights[number], states[number] = stepped
                z.copy_(of_weight)
                for name, part in before.items():
                    part.copy_(of_state[name])
    with torch.enable_grad():
        last = [weight.detach().requires_grad_() for weight in weights]
        try:
            return tangents.result(last)
        except NotFiniteError as error:
            if not all(bool(weight.isfinite().all()) for weight in last):
                raise
            reason = error
    raise NotFiniteError(
        "the loss is finite, but its hypergradients are not: the rule has no "
        "derivative where it was used, such as √v at v = 0 for a weight whose "
        "gradient is 0; add a small number inside of the root"
    ) from reason


def _stepped(rule: Rule, primals: tuple[Any, ...], step: int) -> tuple[Tensor, State]:
    weight, gradient, state, values = primals
    given = [weight, gradient, *state.values(), *values.values()]
    versions = [tensor._version for tensor in given]
    found = rule(weight, gradient, state, values, step)
    if [tensor._version for tensor in given] != versions:
        raise RuntimeError(
            "the rule changed one of its arguments in place, so that its derivative "
            "would be wrong: expected it to return new tensors"
        )
    names = set(state)
    if not (
        isinstance(found, tuple)
        and len(found) == 2
        and isinstance(found[0], Tensor)
        and isinstance(found[1], Mapping)
        and set(found[1]) == names
    ):
        raise TypeError(
            f"expected the rule to return the new weight and a dict of the new state "
            f"with {', '.join(sorted(names)) or 'no entries'}, got {found!r:.200}"
        )
    return found


def _tangent(
    rule: Rule, step: int, primals: tuple[Any, ...], *tangents: Any
) -> tuple[Tensor, State]:
    """Return the derivative of a step of one weight along ``tangents``."""

    def stepped(
        weight: Tensor, gradient: Tensor, state: State, values: State
    ) -> tuple[Tensor, State]:
        return rule(weight, gradient, state, values, step)

    found: tuple[Tensor, State] = jvp(stepped, primals, tangents)[1]
    return found


def _unit(active: int | None, length: int, weight: Tensor) -> Tensor:
    """Return which of the tangents is that of the value in use, shape (length,)."""
    unit = weight.new_zeros(length)
    if active is not None:
        unit[active] = 1.0
    return unit
