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

if TYPE_CHECKING:  # not every build of torch has it
    from torch.distributed import ProcessGroup


class BilevelStep(NamedTuple):
    """What :func:`bilevel_step` returns.

    Attributes:
        inner_loss: ℓ at the weights and λ from before the step, detached.
        outer_loss: L at the virtual weights, detached.
        hypergradient: dL/dλ, one tensor for each of λ.

    All three are means over the processes of a group.
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

    The hypergradient goes through one virtual inner step from the present weights;
    the weights themselves take the base optimizer's step. The two share the inner
    forward pass: where λ enters behind the model's outputs, as sample weights do, only
    what lies behind is computed again with the new λ, and ``inner_loss`` is called
    once. Where λ enters among the weights, it is called again.

    Args:
        model: the base model; its parameters that require grad and are not λ are θ.
        inner_loss: ℓ, called ``inner_loss(view)``; ``view`` behaves as the model.
        outer_loss: L, called likewise with the model at the virtual weights.
        base_optimizer: of θ, and of whatever else it holds.
        hyper_optimizer: of λ.
        hyperparameters: λ; None: all parameters of ``hyper_optimizer``.
        lr: η of the virtual step; None: the base optimizer's, first group.
        update: ``"gradient"``, or ``"evolution"`` for the paper's Algorithm 1.
        estimator: as for :class:`~l2l_evograd.EvoGradMetaOptimizer`.
        base_step: ``"after"``: the base step sees the new λ, as in Meta-Weight-Net.
            ``"before"``: it uses the gradient at the old λ, one pass fewer, as in
            learned feature-wise transformation. With ``update="evolution"`` the
            population then surrounds the weights after that step, as in the paper's
            code.
        generator: of the perturbations; None: torch's global one, which then advances
            by one draw if there are any.
        allow_unused: accept λ, or weights, that the inner loss does not use.
        process_group: processes that make this step together, each with a share of the
            data and the same weights, λ and optimizers. ℓ and L are then the means of
            their losses, and all take the same step. Buffers are each process's own.
            Processes that share out the candidates of a population instead are
            ``EvoGrad``'s own ``process_group``; of both, a grid of processes can have
            the one along its rows and the other along its columns.
        check: as for :func:`~l2l_evograd.hypergradient`.

    Returns:
        :class:`BilevelStep`. Parameters of both optimizers hold the gradients that
        were applied in ``.grad``. Buffers and random state are as after one ordinary
        training step and one evaluation of the outer loss; the outer loss does not
        update buffers.

    Raises:
        TypeError, ValueError: as :func:`hypergradient`; ValueError if the base
            optimizer holds one of λ, or if the same processes are to share out data
            and candidates.

    Cost:
        One inner forward pass, one backward pass for the virtual step and one for the
        base step (``"before"``: the same one), one forward and backward pass of the
        outer loss, and what the estimator costs. Between processes three messages of
        the size of θ (``"before"``: two), and one of the size of λ.

    Source: Bohdal, Yang, Hospedales, NeurIPS 2021, Algorithm 1; for the order of the
    steps their released code.
    """
    check_choice(base_step, ("after", "before"), "base_step")
    named = _parameters(hyper_optimizer) if hyperparameters is None else hyperparameters
    if lr is None:
        lr = float(base_optimizer.param_groups[0]["lr"])
    processes = Processes(process_group)
    rule = make_update(update, estimator, processes)
    chosen = find_hyperparameters(named, model)
    _check_apart(base_optimizer, chosen)
    parameters = dict(model.named_parameters())
    params = [parameters[name] for name in adapted_names(model, chosen)]
    own = {id(param) for param in params}
    others = [
        p for p in _parameters(base_optimizer) if id(p) not in own and p.requires_grad
    ]
    early = base_step == "before" and isinstance(rule, Evolution)

    def step_early(value: Tensor, base: Sequence[Tensor]) -> None:
        # As in the paper's code, the population surrounds the weights after this step.
        found = torch.autograd.grad(
            value, [*base, *others], allow_unused=True, retain_graph=True
        )
        _take([*params, *others], processes.mean(list(found)))
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
        beforehand=step_early if early else None,
    )
    for tensor, grad in zip(chosen, found.hypergradient, strict=True):
        tensor.grad = grad
    hyper_optimizer.step()
    if not early:
        gradients, extras = found.gradients, found.extras
        if base_step == "after":
            gradients, extras = found.at_present()
        _take([*params, *others], [*gradients.values(), *extras])
        base_optimizer.step()
    return BilevelStep(found.inner_loss, found.outer_loss, found.hypergradient)


def _take(params: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Put gradients into ``.grad``, in place of what was there."""
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
