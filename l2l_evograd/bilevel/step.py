"""``bilevel_step``: one step of online bilevel training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from l2l_evograd.bilevel.gradients import compute
from l2l_evograd.bilevel.problem import Loss
from l2l_evograd.checks import check_choice, check_positive
from l2l_evograd.distributed import Processes
from l2l_evograd.estimators import Estimator
from l2l_evograd.hyperparameters import (
    Hyperparameters,
    adapted_names,
    find_hyperparameters,
)
from l2l_evograd.updates.evolution import Evolution
from l2l_evograd.updates.inner_step import make_update

if TYPE_CHECKING:  # some builds of torch lack it
    from torch.distributed import ProcessGroup


class BilevelStep(NamedTuple):
    """What :func:`bilevel_step` returns.

    Attributes:
        inner_loss: ℓ at the weights and λ from before the step, detached.
        outer_loss: L at the virtual weights, detached.
        hypergradient: dL/dλ, one tensor for each of λ.

    With a process group, all three are means over its processes.
    """

    inner_loss: Tensor
    outer_loss: Tensor
    hypergradient: list[Tensor]


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

    Returns:
        :class:`BilevelStep`. The parameters of both optimizers have the applied
        gradients in ``.grad``. Buffers and random state are the same as after one
        ordinary training step and one evaluation of the outer loss; the outer loss does
        not update buffers.

    Raises:
        TypeError, ValueError: as :func:`hypergradient`; ValueError if the base
            optimizer holds one of λ, or if the same processes would split both data
            and candidates.

    Cost:
        One inner forward pass, one backward pass for the virtual step and one for the
        base step (``"before"``: the same one), one forward and backward pass of the
        outer loss, and what the estimator costs. Processes exchange three messages of
        the size of θ (``"before"``: two), and one of the size of λ.

    Source: Bohdal, Yang, Hospedales, NeurIPS 2021, Algorithm 1. The order of the steps
    is that of their released code.
    """
    check_choice(base_step, ("after", "before"), "base_step")
    named = _parameters(hyper_optimizer) if hyperparameters is None else hyperparameters
    if lr is None:
        lr = float(base_optimizer.param_groups[0]["lr"])
    rule = make_update(update, estimator, Processes(process_group))
    chosen = find_hyperparameters(named, model)
    _check_apart(base_optimizer, chosen)
    parameters = dict(model.named_parameters())
    params = [parameters[name] for name in adapted_names(model, chosen)]
    own = {id(param) for param in params}
    others = [
        p for p in _parameters(base_optimizer) if id(p) not in own and p.requires_grad
    ]
    early = base_step == "before" and isinstance(rule, Evolution)

    def take_base_step(
        gradients: dict[str, Tensor | None], extras: list[Tensor | None]
    ) -> None:
        if params and all(grad is None for grad in gradients.values()):
            raise ValueError(
                "the inner loss does not depend on the weights: expected a loss "
                "computed with gradients from what inner_loss is called with; remove "
                "torch.no_grad() and .detach() in it"
            )
        _take([*params, *others], [*gradients.values(), *extras])
        base_optimizer.step()

    found = compute(
        model,
        inner_loss,
        outer_loss,
        named,
        check_positive(lr, "lr"),
        rule,
        generator,
        allow_unused,
        others,
        keep=base_step == "after",
        check=check,
        move=take_base_step if early else None,
    )
    for tensor, grad in zip(chosen, found.hypergradient, strict=True):
        tensor.grad = grad
    hyper_optimizer.step()
    if not early:
        gradients, extras = found.gradients, found.extras
        if base_step == "after":
            gradients, extras = found.at_present()
        take_base_step(gradients, extras)
    return BilevelStep(found.inner_loss, found.outer_loss, found.hypergradient)


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
