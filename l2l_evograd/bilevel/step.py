"""``bilevel_step``: one step of online bilevel training."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from l2l_evograd.bilevel.gradients import compute
from l2l_evograd.bilevel.optimizers import check_optimizer, first_rate
from l2l_evograd.bilevel.problem import Loss
from l2l_evograd.checks import NotFiniteError, check_choice, check_module, check_rate
from l2l_evograd.distributed import Processes
from l2l_evograd.estimators import Estimator
from l2l_evograd.finite import GRADIENT, HYPERGRADIENT, Watch, check_policy
from l2l_evograd.hyperparameters import (
    Hyperparameters,
    adapted_names,
    find_hyperparameters,
)
from l2l_evograd.undo import Undo, undo_for
from l2l_evograd.updates.evolution import Evolution
from l2l_evograd.updates.inner_step import Update, make_update

if TYPE_CHECKING:  # some builds of torch lack it
    from torch.distributed import ProcessGroup


class BilevelStep(NamedTuple):
    """What :func:`bilevel_step` returns.

    Attributes:
        inner_loss: ℓ at the weights and λ from before the step, detached.
        outer_loss: L at the virtual weights, detached.
        hypergradient: dL/dλ, one tensor for each of λ.
        skipped: whether something was not finite, so that nothing has moved; then the
            others are NaN. Only with ``nan_policy="skip"``.

    With a process group, the first three are means over its processes.
    """

    inner_loss: Tensor
    outer_loss: Tensor
    hypergradient: list[Tensor]
    skipped: bool = False


def bilevel_step(
    model: nn.Module,
    inner_loss: Loss,
    outer_loss: Loss,
    base_optimizer: Optimizer,
    hyper_optimizer: Optimizer,
    *,
    hyperparameters: Hyperparameters | None = None,
    lr: float | None = None,
    update: str = "gradient",
    estimator: Estimator | str | None = None,
    base_step: str = "after",
    generator: torch.Generator | None = None,
    allow_unused: bool = False,
    process_group: "ProcessGroup | None" = None,
    check: str = "first",
    nan_policy: str = "raise",
) -> BilevelStep:
    """Make one step of online bilevel training: hypergradient, λ step, base step.

    The hypergradient goes through one virtual inner step from the current weights. The
    weights themselves take the base optimizer's step. Both share the inner forward
    pass. With ``base_step="after"`` the base step needs the loss at the new λ: if λ
    enters after the model's outputs, as sample weights do, only the part of the loss
    after λ is computed again, and ``inner_loss`` is called once. If λ enters inside the
    model, ``inner_loss`` is called again.

    Args:
        model: the base model; its parameters that require grad and are not λ are θ.
        inner_loss: ℓ, called ``inner_loss(view)``; ``view`` behaves like the model.
        outer_loss: L, called in the same way; its view has the virtual weights.
        base_optimizer: optimizer of θ, and of any other tensors that it holds.
        hyper_optimizer: optimizer of λ.
        hyperparameters: λ. None: all parameters of ``hyper_optimizer``.
        lr: η of the virtual step. None: the rate of the base optimizer's first group.
        update: ``"gradient"``, or ``"evolution"`` for the paper's Algorithm 1.
        estimator: as for :class:`~l2l_evograd.EvoGradMetaOptimizer`.
        base_step: ``"after"``: the base step uses the new λ, as in Meta-Weight-Net.
            ``"before"``: the base step uses the gradient at the old λ, which saves one
            pass, as in learned feature-wise transformation. With
            ``update="evolution"``, ``"before"`` draws the population around the weights
            after the base step, as in the paper's code.
        generator: generator of the perturbations. None: torch's global generator,
            which advances by one draw if there are perturbations.
        allow_unused: accept λ, or weights, that the inner loss does not use.
        process_group: the processes that make this step together. Each process has its
            own share of the data, and the same weights, λ and optimizers. ℓ and L are
            then the means of the processes' losses, and all processes take the same
            step. Each process has its own buffers. To split the candidates of a
            population instead of the data, use the ``process_group`` of ``EvoGrad``. To
            split both, arrange the processes in a grid: one group along the rows, the
            other along the columns.
        check: as for :func:`~l2l_evograd.hypergradient`.
        nan_policy: what happens if a loss, a gradient, or a value of θ, λ or the
            optimizers' states would be NaN or infinite. ``"raise"``: NotFiniteError.
            ``"skip"``: the step is left out and the result says so, for long runs that
            one bad batch should not end; count the results that were ``skipped``, and
            do not step learning rate schedules for them. On a CUDA device the values
            of ``"raise"`` are looked at when they have arrived, in a later call, and a
            bad step has moved by then; ``"skip"`` waits for the device.

    Returns:
        :class:`BilevelStep`. The parameters of both optimizers have the applied
        gradients in ``.grad``. Buffers and random state are the same as after one
        ordinary training step and one evaluation of the outer loss; the outer loss does
        not update buffers.

    Raises:
        TypeError, ValueError: as :func:`hypergradient`; ValueError if the base
            optimizer holds one of λ, or if the same processes would split both data
            and candidates. NotFiniteError, a ValueError: see ``nan_policy``.

    If an error is raised, and if a step is left out, then θ, λ, ``.grad``, the states
    of both optimizers, buffers and torch's random states are as before the call.

    Cost:
        One inner forward pass, one backward pass for the virtual step and one for the
        base step (``"before"``: the same one), one forward and backward pass of the
        outer loss, and what the estimator costs. A copy of θ, λ and of the optimizers'
        states for the time of their steps, and a few sweeps over them. Processes
        exchange three messages of the size of θ (``"before"``: two), and one of the
        size of λ.

    Source: Bohdal, Yang, Hospedales, NeurIPS 2021, Algorithm 1. The order of the steps
    is that of their released code.
    """
    check_choice(base_step, ("after", "before"), "base_step")
    check_policy(nan_policy)
    check_module(model)
    for optimizer, name in (
        (base_optimizer, "base_optimizer"),
        (hyper_optimizer, "hyper_optimizer"),
    ):
        check_optimizer(optimizer, name)
    named = _parameters(hyper_optimizer) if hyperparameters is None else hyperparameters
    rule = make_update(update, estimator, Processes(process_group))
    chosen = find_hyperparameters(named, model)
    _check_apart(base_optimizer, chosen)
    rate = check_rate(first_rate(base_optimizer) if lr is None else lr)
    wait = nan_policy == "skip"
    try:
        with undo_for(model, generator) as undo:
            return _step(
                model,
                inner_loss,
                outer_loss,
                base_optimizer,
                hyper_optimizer,
                chosen,
                rate,
                rule,
                base_step,
                generator,
                allow_unused,
                check,
                Watch(wait=wait, results=False),
                undo,
            )
    except NotFiniteError:
        if nan_policy == "raise":
            raise
    unknown = torch.full((), math.nan)
    return BilevelStep(
        unknown, unknown, [torch.full_like(t, math.nan) for t in chosen], skipped=True
    )


def _step(
    model: nn.Module,
    inner_loss: Loss,
    outer_loss: Loss,
    base_optimizer: Optimizer,
    hyper_optimizer: Optimizer,
    chosen: list[Tensor],
    rate: float,
    rule: Update,
    base_step: str,
    generator: torch.Generator | None,
    allow_unused: bool,
    check: str,
    watch: Watch,
    undo: Undo,
) -> BilevelStep:
    """Make the step of :func:`bilevel_step`, for arguments that were checked."""
    parameters = dict(model.named_parameters())
    params = [parameters[name] for name in adapted_names(model, chosen)]
    own = {id(param) for param in params}
    others = [
        p for p in _parameters(base_optimizer) if id(p) not in own and p.requires_grad
    ]
    early = base_step == "before" and isinstance(rule, Evolution)
    moved: dict[str, list[Tensor | None]] = {}

    def advance(
        optimizer: Optimizer,
        name: str,
        tensors: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        what: str,
    ) -> None:
        held = {id(tensor): tensor for tensor in (*tensors, *_parameters(optimizer))}
        undo.keep(list(held.values()), optimizer)
        _take(tensors, gradients)
        optimizer.step()
        moved[what] = list(gradients)
        moved[f"what {name} moves to"] = list(held.values())
        moved[f"the state of {name}"] = _moments(optimizer)

    def look() -> None:
        watch.look(moved, "lower the learning rate, or check the losses and the data")
        moved.clear()

    def take_base_step(
        gradients: dict[str, Tensor | None], extras: list[Tensor | None]
    ) -> None:
        if params and all(grad is None for grad in gradients.values()):
            raise ValueError(
                "the inner loss does not depend on the weights: expected a loss "
                "computed with gradients from what inner_loss is called with; remove "
                "torch.no_grad() and .detach() in it"
            )
        found = [*gradients.values(), *extras]
        moving = [*params, *others]
        advance(base_optimizer, "base_optimizer", moving, found, GRADIENT)
        if early:
            look()

    found = compute(
        model,
        inner_loss,
        outer_loss,
        chosen,
        rate,
        rule,
        generator,
        allow_unused,
        others,
        keep=base_step == "after",
        check=check,
        move=take_base_step if early else None,
        watch=watch,
    )
    slopes = found.hypergradient
    advance(hyper_optimizer, "hyper_optimizer", chosen, slopes, HYPERGRADIENT)
    if not early:
        gradients, extras = found.gradients, found.extras
        if base_step == "after":
            look()  # before the inner loss is computed at the new λ
            gradients, extras = found.at_present()
        take_base_step(gradients, extras)
    look()
    return BilevelStep(found.inner_loss, found.outer_loss, found.hypergradient)


def _moments(optimizer: Optimizer) -> list[Tensor | None]:
    """Return the tensors of an optimizer's state that belong to entries of tensors.

    Others, such as the best loss so far, may be infinite on purpose.
    """
    return [
        value
        for tensor, state in optimizer.state.items()
        if isinstance(tensor, Tensor) and isinstance(state, dict)
        for value in state.values()
        if isinstance(value, Tensor) and value.shape == tensor.shape
    ]


def _take(params: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Store gradients in ``.grad``, replacing earlier ones."""
    for param, grad in zip(params, gradients, strict=True):
        param.grad = None if grad is None else grad.detach()


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _check_apart(optimizer: Optimizer, hyperparameters: Sequence[Tensor]) -> None:
    held = {id(param) for param in _parameters(optimizer)}
    for position, tensor in enumerate(hyperparameters):
        if id(tensor) in held:
            raise ValueError(
                f"hyperparameter {position} {tuple(tensor.shape)} is in the base "
                f"optimizer as well: expected each parameter to be adapted or a "
                f"hyperparameter, not both; leave it out of base_optimizer"
            )
