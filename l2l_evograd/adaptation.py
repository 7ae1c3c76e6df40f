"""One inner step on the autograd graph: check the loss, take its gradient, update.

The single place where an inner loss, an update and the caller's graph meet; the
learner's ``adapt``, ``hypergradient`` and ``bilevel_step`` all go through it.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from l2l_evograd.estimators import EvoGrad, resolve_estimator
from l2l_evograd.graph import differentiable_again, is_compiled, reaches
from l2l_evograd.losses import InnerLoss, check_differentiable, check_loss
from l2l_evograd.processes import Processes
from l2l_evograd.pullback import Wanted, connected
from l2l_evograd.stored import StoredGraph
from l2l_evograd.updates import Evolution, Gradient, Update


class Advance(NamedTuple):
    """What one inner step gives.

    Attributes:
        params: the new weights, on the graph of the old ones and of λ.
        gradients: ∇_θ ℓ at the old weights, the mean over processes; empty for
            ``update="evolution"``.
        extras: the derivatives with respect to other tensors, where asked for.
        stored: the graph that was kept for the pullback, which holds it alive.
    """

    params: list[Tensor]
    gradients: list[Tensor]
    extras: list[Tensor | None]
    stored: StoredGraph | None


def make_update(
    update: str,
    lr: float | Sequence[Tensor] | None,
    estimator: object,
    processes: Processes | None = None,
) -> Update:
    """Return the update that the public arguments describe.

    Raises:
        ValueError, TypeError: as :func:`~l2l_evograd.estimators.resolve_estimator`.
        ValueError: if the same processes are to share out data and candidates.
    """
    resolved = resolve_estimator(estimator, update)
    processes = processes or Processes()
    if isinstance(resolved, EvoGrad):
        processes.check_apart(resolved.processes)
    if update == "evolution":
        # resolve_estimator has checked the type.
        return Evolution(resolved, processes)  # type: ignore[arg-type]
    if lr is None:
        raise ValueError(
            "expected lr, the inner learning rate, for update='gradient', got None"
        )
    return Gradient(lr, resolved, processes)


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
    keep_graph: bool,
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
        keep_graph: keep the graph of a step that is to be differentiated twice, where
            it can be, until the pullback has used it.
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
    stored: StoredGraph | None = None
    rates: Sequence[Tensor] = ()
    found: list[Tensor | None] = []
    if isinstance(update, Gradient):
        rates = update.rates
        governed = [loss.inputs[p] for p in wanted.hyperparameters]
        if not update.uses_input_gradients or not _partial(value, governed, params):
            governed = []
        exact = [loss.inputs[p] for p in update.exact(wanted)]
        twice = keep_graph and bool(exact or wanted.curvature) and not loss.packed
        twice = twice and not is_compiled(value) and _partial(value, exact, params)
        targets = [*params, *governed, *extras]
        found = _gradients(value, targets, retain_graph, twice)
        gradients = _filled(found[: len(params)], params, names, allow_unused)
        if twice and differentiable_again(gradients):
            stored = StoredGraph(gradients, params, loss.inputs)
        found = [None if tensor is None else tensor.detach() for tensor in found]
        gradients = update.processes.means([g.detach() for g in gradients])
        if governed:
            found_inputs = found[len(params) : len(params) + len(governed)]
            known = [
                torch.zeros_like(t) if g is None else g
                for g, t in zip(found_inputs, governed, strict=True)
            ]
    with torch.no_grad():
        step = update.step(loss, params, gradients, wanted, seed, known, stored)
    after = connected(step, params, loss.inputs, rates)
    return Advance(after, gradients, found[len(found) - len(extras) :], stored)


def _partial(value: Tensor, inputs: Sequence[Tensor], params: Sequence[Tensor]) -> bool:
    """Say whether derivatives on the graph of ``value`` are ∂/∂inputs with θ held.

    They are not where one input was computed from another, or where the weights were,
    as after an earlier step; and an input may stand beside the graph, as the copy of a
    tensor does that was written to.
    """
    if not inputs:
        return True
    others = [[t for t in inputs if t is not tensor] for tensor in inputs]
    between = any(any(reaches(t, o)) for t, o in zip(inputs, others, strict=True))
    behind = any(any(reaches(param, inputs)) for param in params)
    return not between and not behind and all(reaches(value, inputs))


def _gradients(
    value: Tensor, targets: Sequence[Tensor], retain_graph: bool, create_graph: bool
) -> list[Tensor | None]:
    check_differentiable(value)
    return list(
        torch.autograd.grad(
            value,
            targets,
            allow_unused=True,
            retain_graph=retain_graph or create_graph,
            create_graph=create_graph,
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
