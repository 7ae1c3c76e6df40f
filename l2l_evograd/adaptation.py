"""One inner step on the autograd graph: check the loss, take its gradient, update.

The single place where an inner loss, an update and the caller's graph meet; the
learner's ``adapt``, ``hypergradient`` and ``bilevel_step`` all go through it.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from l2l_evograd.estimators import resolve_estimator
from l2l_evograd.losses import InnerLoss, check_differentiable, check_loss
from l2l_evograd.program import reaches
from l2l_evograd.updates import Evolution, Gradient, Update, Wanted, connected


class Advance(NamedTuple):
    """What one inner step gives.

    Attributes:
        params: the new weights, on the graph of the old ones and of λ.
        gradients: ∇_θ ℓ at the old weights; empty for ``update="evolution"``.
        extras: the derivatives with respect to other tensors, where asked for.
    """

    params: list[Tensor]
    gradients: list[Tensor]
    extras: list[Tensor | None]


def make_update(update: str, lr: float | None, estimator: object) -> Update:
    """Return the update that the public arguments describe.

    Raises:
        ValueError, TypeError: as :func:`~l2l_evograd.estimators.resolve_estimator`.
    """
    resolved = resolve_estimator(estimator, update)
    if update == "evolution":
        return Evolution(resolved)  # type: ignore[arg-type]  # resolve_estimator checks
    if lr is None:
        raise ValueError(
            "expected lr, the inner learning rate, for update='gradient', got None"
        )
    return Gradient(lr, resolved)


def default_generator() -> torch.Generator:
    """Return a generator that follows ``torch.manual_seed`` and draws nothing from it.

    The global random state stays as it is; runs that seed torch are repeatable. The
    seed is a digest of that state, so it differs wherever torch's own draws would.
    """
    state = torch.get_rng_state()
    digest = hashlib.blake2b(bytes(state.tolist()), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def advance(
    value: Tensor,
    loss: InnerLoss,
    params: Sequence[Tensor],
    update: Update,
    wanted: Wanted,
    seed: int,
    names: Sequence[str],
    allow_unused: bool = False,
    retain_graph: bool = False,
    extras: Sequence[Tensor] = (),
) -> Advance:
    """Take one inner step.

    Args:
        value: the inner loss as computed, on the graph of ``params``.
        loss: the same as a function.
        params: the weights.
        update: how they move.
        wanted: whose cotangents are needed.
        seed: of the perturbations.
        names: of the weights, for messages.
        allow_unused: leave weights that the loss does not use as they are.
        retain_graph: keep the graph of ``value``.
        extras: further tensors to differentiate the loss with respect to.

    Raises:
        TypeError, ValueError: as :func:`~l2l_evograd.losses.check_loss`.
        ValueError: if the loss does not require grad, or does not use some weights.
    """
    check_loss(value)
    gradients: list[Tensor] = []
    known: list[Tensor] | None = None
    found: list[Tensor | None] = []
    if isinstance(update, Gradient):
        governed = [loss.inputs[p] for p in wanted.hyperparameters]
        if not update.uses_input_gradients or not _independent(governed, params):
            governed = []
        found = _gradients(value, [*params, *governed, *extras], retain_graph)
        gradients = _filled(found[: len(params)], params, names, allow_unused)
        if governed:
            found_inputs = found[len(params) : len(params) + len(governed)]
            known = [
                torch.zeros_like(t) if g is None else g
                for g, t in zip(found_inputs, governed, strict=True)
            ]
    with torch.no_grad():
        step = update.step(loss, params, gradients, wanted, seed, known)
    after = connected(step, params, loss.inputs)
    return Advance(after, gradients, found[len(found) - len(extras) :])


def _independent(inputs: Sequence[Tensor], params: Sequence[Tensor]) -> bool:
    """Say whether total derivatives with respect to the inputs are partial ones.

    They are not where one input was computed from another, or where the weights were,
    as after an earlier step.
    """
    others = [[t for t in inputs if t is not tensor] for tensor in inputs]
    between = any(any(reaches(t, o)) for t, o in zip(inputs, others, strict=True))
    return not between and not any(any(reaches(param, inputs)) for param in params)


def _gradients(
    value: Tensor, targets: Sequence[Tensor], retain_graph: bool
) -> list[Tensor | None]:
    check_differentiable(value)
    return list(
        torch.autograd.grad(
            value, targets, allow_unused=True, retain_graph=retain_graph
        )
    )


def _filled(
    gradients: Sequence[Tensor | None],
    params: Sequence[Tensor],
    names: Sequence[str],
    allow_unused: bool,
) -> list[Tensor]:
    unused = [n for n, g in zip(names, gradients, strict=True) if g is None]
    if unused and not allow_unused:
        raise ValueError(
            f"the inner loss does not use {len(unused)} of the {len(names)} adapted "
            f"parameters: {', '.join(unused[:5])}{', ...' if len(unused) > 5 else ''}."
            f" Freeze them with requires_grad_(False) or pass allow_unused=True"
        )
    return [
        torch.zeros_like(param) if gradient is None else gradient
        for gradient, param in zip(gradients, params, strict=True)
    ]
