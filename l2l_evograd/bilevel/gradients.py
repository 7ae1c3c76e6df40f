"""``bilevel_gradients``: what one step of bilevel training computes, without stepping.

For loops of one's own: accumulation, scaled losses, clipping, averaging over processes.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from l2l_evograd.bilevel.problem import Loss, ModuleProblem
from l2l_evograd.checks import check_loss, check_positive
from l2l_evograd.distributed import Processes
from l2l_evograd.estimators import Estimator
from l2l_evograd.estimators.perturbations import draw_seed
from l2l_evograd.hyperparameters import Hyperparameters, check_reached
from l2l_evograd.replay.call_state import RandomState, random_state
from l2l_evograd.replay.inner_loss import gradient
from l2l_evograd.replay.program import LostHistory, Program
from l2l_evograd.replay.tensor import plain
from l2l_evograd.updates.inner_step import Checks, Update, inner_step, make_update
from l2l_evograd.updates.situation import Situation

if TYPE_CHECKING:  # not every build of torch has it
    from torch.distributed import ProcessGroup


class BilevelGradients:
    """What :func:`bilevel_gradients` returns.

    Attributes:
        inner_loss: ℓ at the present weights and λ, detached.
        outer_loss: L at the virtual weights, detached.
        hypergradient: dL/dλ, one tensor for each of λ.
        gradients: ∇_θ ℓ at the present weights and λ, one tensor for each parameter
            that requires grad and is not among λ, by name; None where the loss does not
            use it. Empty for ``update="evolution"``, which takes no gradient.
        extras: the same for the tensors of ``also``, in their order.

    All are means over the processes of a group.
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
        """Return ``gradients`` and ``extras`` anew, at the λ of now.

        For after λ has moved, once. Buffers and random numbers are as in the call
        before.

        Cost: one backward pass. Where λ enters behind the model's outputs, as sample
        weights do, what lies behind λ is computed again on the graph that was kept;
        elsewhere ``inner_loss`` is called again, one forward pass more.
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
) -> BilevelGradients:
    """Return the gradients of λ and of the weights, and both losses.

    dL(θ'(λ), λ)/dλ with θ' = θ − lr ∇_θ ℓ(θ, λ), a virtual step from the present
    weights, and ∇_θ ℓ(θ, λ) itself. No parameter and no ``.grad`` is changed.

    Args:
        model: the base model; its parameters that require grad and are not λ are θ.
        inner_loss: ℓ, called ``inner_loss(view)``; ``view`` behaves as the model.
        outer_loss: L, called likewise with the model at the virtual weights.
        hyperparameters: λ.
        lr: η of the virtual step, positive.
        update: ``"gradient"``, or ``"evolution"`` for the paper's Algorithm 1.
        estimator: as for :class:`~l2l_evograd.EvoGradMetaOptimizer`.
        generator: of the perturbations; None: torch's global one, which then advances
            by one draw if there are any.
        allow_unused: accept λ, or weights, that the inner loss does not use.
        process_group: as for :func:`~l2l_evograd.bilevel_step`.
        also: further tensors to differentiate the inner loss with respect to.
        keep: keep what :meth:`BilevelGradients.at_present` needs.
        check: as for :func:`~l2l_evograd.hypergradient`.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`~l2l_evograd.hypergradient`.

    Cost:
        One inner forward pass and one backward pass, one forward and backward pass of
        the outer loss, and what the estimator costs. Between processes two messages of
        the size of θ and one of the size of λ.

    Source: Bohdal, Yang, Hospedales, NeurIPS 2021, Algorithm 1.
    """
    return compute(
        model,
        inner_loss,
        outer_loss,
        hyperparameters,
        lr,
        make_update(update, estimator, Processes(process_group)),
        generator,
        allow_unused,
        also,
        keep,
        check,
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
    beforehand: Callable[[Tensor, Sequence[Tensor]], None] | None = None,
) -> BilevelGradients:
    """Do what :func:`bilevel_gradients` says, with the update made already.

    ``beforehand`` is called with the inner loss and the weights that it was computed
    from, before a population is drawn; it may move the weights in place, and the
    population surrounds them then.
    """
    processes = rule.processes
    rate = check_positive(lr, "lr")
    problem = ModuleProblem(model, hyperparameters, own_buffers=False)
    also = list(also)
    with torch.enable_grad():
        start = _Start(problem, inner_loss)
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
                check=Checks.of(check, inner_loss, problem.identity).due(),
                seed=processes.common(
                    _seed(generator, rule.estimator), _device(problem)
                ),
                retain_graph=shared is not None,
                extras=also,
                beforehand=beforehand,
            ),
        )
        if not allow_unused:
            check_reached(stepped.reached, problem.hyperparameters, problem.names)
        inner_value = plain(value).detach()
        before = problem.values
        # Its graph would live through the passes to come.
        del value
        problem.values = stepped.params
        outer = check_loss(problem.outer(outer_loss), "the outer loss")
        hypergradients = gradient(outer, problem.hyperparameters)
        *hypergradients, inner_value, outer = processes.means(
            [*(grad.detach() for grad in hypergradients), inner_value, outer.detach()]
        )
    problem.values = before

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

    names = problem.weight_names
    return BilevelGradients(
        inner_value,
        outer,
        list(hypergradients),
        dict(zip(names, stepped.gradients, strict=True)) if stepped.gradients else {},
        processes.mean(stepped.extras),
        again,
    )


class _Start:
    """The circumstances in which the inner loss was called, to call it again there."""

    def __init__(self, problem: ModuleProblem, inner_loss: Loss) -> None:
        self._problem = problem
        self._inner_loss = inner_loss
        self._buffers = problem.buffers()
        devices = {torch.device("cpu"), *(t.device for t in problem.values)}
        self._random = [RandomState(device, random_state(device)) for device in devices]

    def loss(self) -> Tensor:
        """Return the inner loss at the present λ."""
        with contextlib.ExitStack() as stack:
            for state in self._random:
                stack.enter_context(state.again())
            return self._problem.inner_from(self._inner_loss, self._buffers)


def _part_behind(value: Tensor, problem: ModuleProblem) -> Program | None:
    """Return the part of the loss behind λ, if it can be computed again on its own.

    It can where λ enters behind the weights, and nothing of it leaves as a number.
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
