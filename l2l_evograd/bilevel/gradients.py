"""``bilevel_gradients``: the gradients of a bilevel training step, without stepping.

For custom training loops: accumulation, scaled losses, clipping, averaging over
processes.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from l2l_evograd.bilevel.problem import Loss, ModuleProblem, outer_gradient
from l2l_evograd.checks import (
    check_callable,
    check_differentiable,
    check_flag,
    check_loss,
    check_module,
    check_rate,
)
from l2l_evograd.distributed import Processes
from l2l_evograd.estimators import Estimator
from l2l_evograd.finite import Watch, check_tensors
from l2l_evograd.hyperparameters import Hyperparameters, check_reached
from l2l_evograd.replay.call_state import RandomState, random_state
from l2l_evograd.replay.program import LostHistory, Program
from l2l_evograd.replay.tensor import plain
from l2l_evograd.seeds import draw_seed
from l2l_evograd.undo import kept_grads, unchanged, undo_for
from l2l_evograd.updates.inner_step import History, Update, inner_step, make_update
from l2l_evograd.updates.situation import Situation

if TYPE_CHECKING:  # some builds of torch lack it
    from torch.distributed import ProcessGroup


# Takes the gradients of the weights, by name, and those of ``also``.
Move = Callable[[dict[str, Tensor | None], list[Tensor | None]], None]


class BilevelGradients:
    """What :func:`bilevel_gradients` returns.

    Attributes:
        inner_loss: ℓ at the current weights and λ, detached.
        outer_loss: L at the virtual weights, detached.
        hypergradient: dL/dλ, one tensor for each of λ.
        gradients: ∇_θ ℓ at the current weights and λ, by name: one tensor for each
            parameter that requires grad and is not among λ, or None if the loss does
            not use that parameter. Empty for ``update="evolution"`` without ``move``,
            which takes no gradient.
        extras: the derivatives of ℓ with respect to the tensors of ``also``, in the
            same order.

    With a process group, all of these are means over its processes.
    """

    def __init__(
        self,
        inner_loss: Tensor,
        outer_loss: Tensor,
        hypergradient: list[Tensor],
        gradients: dict[str, Tensor | None],
        extras: list[Tensor | None],
        again: Callable[[], tuple[dict[str, Tensor | None], list[Tensor | None]]],
    ) -> None:
        self.inner_loss = inner_loss
        self.outer_loss = outer_loss
        self.hypergradient = hypergradient
        self.gradients = gradients
        self.extras = extras
        self._again = again

    def at_present(
        self,
    ) -> tuple[dict[str, Tensor | None], list[Tensor | None]]:
        """Return ``gradients`` and ``extras`` again, at the current values of λ.

        Call this after λ has changed, and only once. The inner loss sees the same
        buffers and random numbers as in the original call.

        Cost: one backward pass. If λ enters after the model's outputs, as sample
        weights do, only the part of the loss after λ is computed again, on the graph
        that was kept. Otherwise ``inner_loss`` is called again, which costs one more
        forward pass.
        """
        return self._again()


def bilevel_gradients(
    model: nn.Module,
    inner_loss: Loss,
    outer_loss: Loss,
    *,
    hyperparameters: Hyperparameters,
    lr: float,
    update: str = "gradient",
    estimator: Estimator | str | None = None,
    generator: torch.Generator | None = None,
    allow_unused: bool = False,
    process_group: "ProcessGroup | None" = None,
    also: Sequence[Tensor] = (),
    keep: bool = False,
    check: str = "first",
    move: Move | None = None,
) -> BilevelGradients:
    """Return the gradients of λ and of the weights, and both losses.

    Computes dL(θ'(λ), λ)/dλ, where θ' = θ − lr ∇_θ ℓ(θ, λ) is a virtual step from the
    current weights, and ∇_θ ℓ(θ, λ). No parameter and no ``.grad`` is changed. The
    losses, θ and λ must be finite; the gradients may be infinite, as those of losses
    that were scaled up for half precision, and the caller looks at them.

    Args:
        model: the base model; its parameters that require grad and are not λ are θ.
        inner_loss: ℓ, called ``inner_loss(view)``; ``view`` behaves like the model.
        outer_loss: L, called in the same way; its view has the virtual weights.
        hyperparameters: λ.
        lr: η of the virtual step, positive.
        update: ``"gradient"``, or ``"evolution"`` for the paper's Algorithm 1.
        estimator: as for :class:`~l2l_evograd.EvoGradMetaOptimizer`.
        generator: generator of the perturbations. None: torch's global generator,
            which advances by one draw if there are perturbations.
        allow_unused: accept λ, or weights, that the inner loss does not use.
        process_group: as for :func:`~l2l_evograd.bilevel_step`.
        also: further tensors to differentiate the inner loss with respect to.
        keep: keep what :meth:`BilevelGradients.at_present` needs.
        check: as for :func:`~l2l_evograd.hypergradient`.
        move: only for ``update="evolution"``: called once with the ``gradients`` and
            ``extras`` of the result, before the population is drawn. It may change the
            weights in place; the population is then drawn around the changed weights,
            as in the paper's code. This costs one backward pass.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`~l2l_evograd.hypergradient`.
            Buffers and random state are then as before the call.

    Cost:
        One inner forward pass and one backward pass, one forward and backward pass of
        the outer loss, and what the estimator costs. Processes exchange two messages of
        the size of θ and one of the size of λ.

    Source: Bohdal, Yang, Hospedales, NeurIPS 2021, Algorithm 1.
    """
    check_module(model)
    rule = make_update(update, estimator, Processes(process_group))
    with undo_for(model, generator):
        return compute(
            model,
            inner_loss,
            outer_loss,
            hyperparameters,
            lr,
            rule,
            generator,
            allow_unused,
            also,
            keep,
            check,
            move,
        )


def compute(
    model: nn.Module,
    inner_loss: Loss,
    outer_loss: Loss,
    hyperparameters: Hyperparameters,
    lr: float,
    rule: Update,
    generator: torch.Generator | None,
    allow_unused: bool,
    also: Sequence[Tensor],
    keep: bool,
    check: str,
    move: Move | None = None,
    watch: Watch | None = None,
) -> BilevelGradients:
    """Compute what :func:`bilevel_gradients` returns, for a given update rule.

    ``watch`` looks at all gradients; None: the caller does.
    """
    check_callable(inner_loss, "inner_loss", "inner_loss(view)")
    check_callable(outer_loss, "outer_loss", "outer_loss(view)")
    check_flag(allow_unused, "allow_unused")
    processes = rule.processes
    rate = check_rate(lr)
    alone = processes.group is None  # else what is averaged is looked at
    wait = watch is not None and watch.wait
    problem = ModuleProblem(model, hyperparameters, own_buffers=False)
    names = problem.weight_names
    also = list(also)
    if watch is None:
        check_tensors(
            {
                "the hyperparameters": problem.hyperparameters,
                "the weights": problem.values,
            }
        )
    taken: list[Tensor | None] = []

    def move_first(loss: Tensor, params: Sequence[Tensor]) -> None:
        check_differentiable(loss)
        found = torch.autograd.grad(
            loss, [*params, *also], allow_unused=True, retain_graph=True
        )
        taken.extend(processes.mean(list(found)))
        if move is not None:
            move(dict(zip(names, taken, strict=False)), taken[len(params) :])

    with torch.enable_grad(), kept_grads(problem.hyperparameters):
        start = _Start(problem, inner_loss)
        history = History.of(check, inner_loss, problem.identity, problem.model)
        due = history.due()
        held = [*problem.values, *problem.hyperparameters]
        with unchanged(held, "the inner loss", due):
            value = problem.inner(
                inner_loss, record=True, twice=rule.estimator.exact, mark=keep
            )
        shared = _part_behind(value, problem) if keep else None
        stepped = inner_step(
            rule,
            Situation(
                value=value,
                params=problem.values,
                names=lambda: problem.weight_names,
                lr=rate,
                hyperparameters=problem.hyperparameters,
                first_order=True,
                allow_unused=allow_unused,
                check=due,
                seed=processes.common(
                    _seed(generator, rule.estimator), _device(problem)
                ),
                retain_graph=shared is not None,
                extras=also,
                beforehand=None if move is None else move_first,
                watch=watch,
            ),
        )
        if not allow_unused:
            check_reached(stepped.reached, problem.hyperparameters, problem.names)
        inner_value = plain(value).detach()
        before = problem.values
        # Otherwise its graph would stay in memory during the passes below.
        del value
        problem.values = stepped.params
        with unchanged([*held, *stepped.params], "the outer loss", due):
            outer = problem.outer(outer_loss)
        check_loss(outer, "the outer loss", wait, look=alone)
        hypergradients = outer_gradient(outer, problem.hyperparameters, allow_unused)
        *hypergradients, inner_value, outer = processes.means(
            [*(grad.detach() for grad in hypergradients), inner_value, outer.detach()]
        )
    problem.values = before
    if not alone:
        check_loss(inner_value, "the mean inner loss", wait)
        check_loss(outer, "the mean outer loss", wait)

    def again() -> tuple[dict[str, Tensor | None], list[Tensor | None]]:
        with torch.enable_grad():
            if shared is None:
                loss = start.loss()
            else:
                loss = shared(problem.hyperparameters, shared.inputs)
            found = torch.autograd.grad(loss, [*before, *also], allow_unused=True)
        means = processes.mean(list(found))
        split = len(before)
        return dict(zip(names, means[:split], strict=True)), means[split:]

    gradients, extras = stepped.gradients, processes.mean(stepped.extras)
    if taken:
        gradients, extras = taken[: len(before)], taken[len(before) :]
    return BilevelGradients(
        inner_value,
        outer,
        list(hypergradients),
        dict(zip(names, gradients, strict=True)) if gradients else {},
        extras,
        again,
    )


class _Start:
    """The buffers and random state before the inner loss was called."""

    def __init__(self, problem: ModuleProblem, inner_loss: Loss) -> None:
        self._problem = problem
        self._inner_loss = inner_loss
        self._buffers = problem.buffers()
        devices = {torch.device("cpu"), *(t.device for t in problem.values)}
        self._random = [RandomState(device, random_state(device)) for device in devices]

    def loss(self) -> Tensor:
        """Call the inner loss again from this state, at the current λ."""
        with contextlib.ExitStack() as stack:
            for state in self._random:
                stack.enter_context(state.again())
            return self._problem.inner_from(self._inner_loss, self._buffers)


def _part_behind(value: Tensor, problem: ModuleProblem) -> Program | None:
    """Return the part of the loss that depends on λ, if it can be computed again alone.

    It can if λ enters after all weights, and if no value that depends on λ has left the
    autograd graph, for example as a Python number.
    """
    if problem.escaped:
        return None
    try:
        part = Program(value, problem.hyperparameters, hold=True, behind=True)
    except LostHistory:
        return None
    weights = {id(tensor) for tensor in problem.values}
    if not part.used or any(id(t) in weights for t in part.inputs):
        return None
    return part


def _device(problem: ModuleProblem) -> torch.device:
    return problem.values[0].device


def _seed(generator: torch.Generator | None, estimator: Estimator) -> int:
    if not estimator.random:
        return 0  # nothing is perturbed, so nothing is drawn
    return draw_seed(torch.default_generator if generator is None else generator)
