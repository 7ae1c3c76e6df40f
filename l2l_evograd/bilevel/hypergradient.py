"""``hypergradient``: a pure function from weights and hyperparameters to gradients."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from l2l_evograd.bilevel.problem import DictProblem, Loss, ModuleProblem, outer_gradient
from l2l_evograd.checks import (
    check_callable,
    check_count,
    check_flag,
    check_loss,
    check_rate,
)
from l2l_evograd.estimators import Estimator
from l2l_evograd.finite import HYPERGRADIENT, OUTER_ADVICE, Watch
from l2l_evograd.hyperparameters import Hyperparameters, check_reached
from l2l_evograd.replay.tensor import plain
from l2l_evograd.seeds import default_generator, draw_seed
from l2l_evograd.undo import kept_grads, unchanged, undo_for
from l2l_evograd.updates.adjoint import Gate
from l2l_evograd.updates.evolution import Evolution
from l2l_evograd.updates.inner_step import (
    MEMORY_LIMIT,
    History,
    Keeping,
    Update,
    inner_step,
    make_update,
    needs_a_record,
)
from l2l_evograd.updates.situation import Situation


class Hypergradient(NamedTuple):
    """What :func:`hypergradient` returns.

    Attributes:
        gradients: dL/dλ, in the structure of ``hyperparameters``: a dict for a dict, a
            tensor for a tensor, else a list.
        params: the weights after the inner steps, detached, by name.
        inner_loss: ℓ before the first step, detached.
        outer_loss: L at the new weights, detached.
    """

    gradients: Any
    params: dict[str, Tensor]
    inner_loss: Tensor
    outer_loss: Tensor


def hypergradient(
    inner_loss: Loss | Sequence[Loss],
    outer_loss: Loss,
    params: Mapping[str, Tensor] | nn.Module,
    hyperparameters: Hyperparameters | Mapping[str, Tensor],
    *,
    lr: float | None = None,
    update: str = "gradient",
    estimator: Estimator | str | None = None,
    steps: int = 1,
    first_order: bool | None = None,
    generator: torch.Generator | None = None,
    allow_unused: bool = False,
    memory: str = "auto",
    memory_limit: int = MEMORY_LIMIT,
    check: str = "first",
) -> Hypergradient:
    """Return dL(θ_T(λ), λ)/dλ for T inner steps from θ, changing nothing.

    θ_{t+1} = θ_t − lr ∇_θ ℓ(θ_t, λ), or Algorithm 1 for ``update="evolution"``.

    Args:
        inner_loss: ℓ; a sequence has one loss for each step. With a dict of weights
            it is called ``inner_loss(params, hyperparameters)``, with a module
            ``inner_loss(view)``, where ``view`` behaves like the module. It is called
            once for each step; all further evaluations replay the record of that call.
        outer_loss: L, called in the same way at the new weights.
        params: θ as a dict of tensors, or a module. The parameters of a module that
            require grad and are not λ are θ.
        hyperparameters: λ. With a dict of weights: a tensor, a sequence or a dict of
            tensors. With a module: tensors inside or outside it, modules or names.
        lr: η, positive: a number of any kind, or a tensor of one element. Required for
            ``update="gradient"``.
        update: ``"gradient"`` or ``"evolution"``.
        estimator: as for :class:`~l2l_evograd.EvoGradMetaOptimizer`.
        steps: T.
        first_order: whether to drop the curvature that passes the cotangent from one
            inner step to the one before it. None: False for ``Exact()``, else True.
        generator: generator of the perturbations. None: the perturbations follow from
            torch's global random state, which is not advanced, so a second call draws
            the same perturbations.
        allow_unused: return 0 for hyperparameters that no inner loss uses, and leave
            weights that the loss does not use unchanged.
        memory: as for :class:`~l2l_evograd.EvoGradMetaOptimizer`.
        memory_limit: likewise.
        check: likewise; ``"first"`` counts the steps with the same ``inner_loss`` over
            all calls.

    Returns:
        :class:`Hypergradient`. The global random state is the same as after one
        ordinary call of each loss.

    Raises:
        TypeError, ValueError: if a loss is not a finite scalar tensor, if one of λ is
            among the weights or is not used, or if a setting is out of range.
        NotFiniteError: a ValueError, if a loss, a gradient, θ or λ is not finite.
        RuntimeError: if the inner loss, computed again, gives a different result.

    Cost:
        For each step one forward and backward pass, and what the estimator costs; one
        forward and backward pass of the outer loss. A check costs one more forward and
        backward pass.

    Source: Bohdal, Yang, Hospedales, NeurIPS 2021, Algorithm 1 and Table 1.
    """
    rule = make_update(update, estimator)
    rate = _number(lr, isinstance(rule, Evolution))
    check_callable(outer_loss, "outer_loss", "as inner_loss is")
    check_flag(allow_unused, "allow_unused")
    if first_order is not None:
        check_flag(first_order, "first_order")
    with undo_for(params, generator):
        return _hypergradient(
            _one_for_each_step(inner_loss, steps),
            outer_loss,
            params,
            hyperparameters,
            rate,
            rule,
            first_order,
            generator,
            allow_unused,
            Keeping(memory, memory_limit),
            check,
        )


def _hypergradient(
    losses: list[Loss],
    outer_loss: Loss,
    params: Mapping[str, Tensor] | nn.Module,
    hyperparameters: Hyperparameters | Mapping[str, Tensor],
    rate: float,
    rule: Update,
    first_order: bool | None,
    generator: torch.Generator | None,
    allow_unused: bool,
    keeping: Keeping,
    check: str,
) -> Hypergradient:
    """Return what :func:`hypergradient` returns, for arguments that were checked."""
    if first_order is None:
        first_order = not rule.estimator.exact
    problem: DictProblem | ModuleProblem
    if isinstance(params, nn.Module):
        problem = ModuleProblem(params, hyperparameters)
    else:
        problem = DictProblem(params, hyperparameters)
    if generator is None and rule.estimator.random:
        generator = default_generator()
    watch = Watch(results=False)
    gate = Gate()
    first: Tensor | None = None
    reached = [False] * len(problem.hyperparameters)
    with torch.enable_grad(), kept_grads(problem.hyperparameters):
        for position, loss in enumerate(losses):
            # The curvature of the first step only affects the gradient of the initial
            # weights, which is not wanted.
            dropped = first_order or position == 0
            twice = rule.estimator.exact or not dropped
            history = History.of(check, loss, problem.identity, problem.model)
            recorded = needs_a_record(
                rule, problem.hyperparameters, dropped, keeping, history
            )
            due = recorded and history.due()
            held = [*problem.values, *problem.hyperparameters]
            with unchanged(held, "the inner loss", due or position == 0):
                value = problem.inner(loss, recorded, twice)
            if position == 0 and len(losses) > 1:
                problem.warn_of_lost_state()
            stepped = inner_step(
                rule,
                Situation(
                    value=value,
                    params=problem.values,
                    names=lambda: problem.weight_names,
                    lr=rate,
                    hyperparameters=problem.hyperparameters,
                    first_order=dropped,
                    allow_unused=allow_unused,
                    again=twice and keeping.again,
                    insist=keeping.insist,
                    keep=keeping.keeps,
                    check=due,
                    seed=draw_seed(generator)
                    if generator and rule.estimator.random
                    else 0,
                    gate=gate,
                    watch=watch,
                ),
            )
            pairs = zip(reached, stepped.reached, strict=True)
            reached = [a or b for a, b in pairs]
            keeping.note(stepped)
            history.note(stepped)
            problem.values = stepped.params
            first = plain(value).detach() if first is None else first
            del value, stepped
        if not allow_unused:
            check_reached(reached, problem.hyperparameters, problem.names)
        with unchanged([*problem.values, *held], "the outer loss", due):
            outer = check_loss(problem.outer(outer_loss), "the outer loss")
        gradients = outer_gradient(outer, problem.hyperparameters, allow_unused)
        watch.look({HYPERGRADIENT: gradients}, OUTER_ADVICE)
    if first is None:
        raise ValueError("expected at least one inner loss, got none")
    named = zip(problem.weight_names, problem.values, strict=True)
    after = {name: value.detach() for name, value in named}
    return Hypergradient(problem.structured(gradients), after, first, outer.detach())


def _number(lr: Any, optional: bool) -> float:
    if lr is None:
        if optional:
            return 1.0
        raise ValueError(
            "expected lr, the inner learning rate, for update='gradient', got None"
        )
    return check_rate(lr)


def _one_for_each_step(inner_loss: Loss | Sequence[Loss], steps: int) -> list[Loss]:
    steps = check_count(steps, "steps")
    if callable(inner_loss):
        return [inner_loss] * steps
    if isinstance(inner_loss, Tensor) or not isinstance(inner_loss, Iterable):
        check_callable(inner_loss, "inner_loss", "inner_loss(params, hyperparameters)")
    losses = list(inner_loss)
    for loss in losses:
        check_callable(loss, "every inner loss", "inner_loss(params, hyperparameters)")
    if steps not in (1, len(losses)) or not losses:
        raise ValueError(
            f"expected one inner loss for each of {steps} steps, got {len(losses)}"
        )
    return losses
