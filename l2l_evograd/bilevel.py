"""Hypergradients for people with a bilevel problem of their own.

``hypergradient`` is a function: weights and hyperparameters in, gradients out, nothing
changed. It also takes a module, and then looks after buffers and random state.
``bilevel_step`` is one step of online bilevel training on the same parts.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from l2l_evograd.adaptation import default_generator, make_update
from l2l_evograd.estimators import (
    Estimator,
    EvoGrad,
    Exact,
    check_choice,
    check_positive,
    resolve_estimator,
)
from l2l_evograd.graph import reaches
from l2l_evograd.hyperparameters import (
    Hyperparameters,
    assign_roles,
    check_reached,
)
from l2l_evograd.losses import check_loss, gradient
from l2l_evograd.perturbations import draw_seed
from l2l_evograd.posed import DictProblem, Loss, ModuleProblem
from l2l_evograd.processes import Processes
from l2l_evograd.program import LostHistory, Program
from l2l_evograd.pullback import Wanted
from l2l_evograd.recording import ModuleCall
from l2l_evograd.replay import ReplayTensor, plain
from l2l_evograd.updates import Evolution, Gradient, Update

if TYPE_CHECKING:  # not every build of torch has it
    from torch.distributed import ProcessGroup


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
) -> Hypergradient:
    """Return dL(θ_T(λ), λ)/dλ for T inner steps from θ, changing nothing.

    θ_{t+1} = θ_t − lr ∇_θ ℓ(θ_t, λ), or Algorithm 1 for ``update="evolution"``.

    Args:
        inner_loss: ℓ; a sequence has one loss for each step. With a dict of weights
            it is called ``inner_loss(params, hyperparameters)``, with a module
            ``inner_loss(view)``, where ``view`` behaves as the module.
        outer_loss: L, called in the same way at the new weights.
        params: θ as a dict of tensors, or a module, whose parameters other than λ
            that require grad are θ.
        hyperparameters: λ. With a dict of weights: a tensor, a sequence or a dict of
            tensors. With a module: tensors inside or outside it, modules or names.
        lr: η, positive; for ``update="gradient"``.
        update: ``"gradient"`` or ``"evolution"``.
        estimator: as for :class:`~l2l_evograd.EvoGradMetaOptimizer`.
        steps: T.
        first_order: whether to drop the curvature that passes the cotangent from one
            inner step to the one before it. None: False for ``Exact()``, else True.
        generator: of the perturbations. None: they follow from the global random
            state, which is not advanced, so a second call draws the same.
        allow_unused: return 0 for hyperparameters that no inner loss reaches, and
            leave weights that the loss does not use as they are.

    Returns:
        :class:`Hypergradient`. The global random state is as after one ordinary call
        of each loss.

    Raises:
        TypeError, ValueError: for losses that are no finite scalar tensors, λ among
            the weights or not reached, and settings out of range.

    Cost:
        For each step one forward and backward pass, and what the estimator costs; one
        forward and backward pass of the outer loss.

    Source: Bohdal, Yang, Hospedales, NeurIPS 2021, Algorithm 1 and Table 1.
    """
    if lr is not None:
        check_positive(lr, "lr")
    resolved = resolve_estimator(estimator, update)
    rule = make_update(update, lr, resolved)
    if first_order is None:
        first_order = not isinstance(resolved, Exact)
    losses = _one_for_each_step(inner_loss, steps)
    problem: DictProblem | ModuleProblem
    if isinstance(params, nn.Module):
        problem = ModuleProblem(params, hyperparameters)
    else:
        problem = DictProblem(params, hyperparameters)
    source = default_generator() if generator is None else generator
    first: Tensor | None = None
    reached = [False] * len(problem.hyperparameters)
    with torch.enable_grad():
        for position, loss in enumerate(losses):
            value, inner = problem.inner(loss, isinstance(rule, Gradient))
            wanted, hits = assign_roles(inner, problem.hyperparameters, first_order)
            reached = [a or b for a, b in zip(reached, hits, strict=True)]
            # The curvature of the first step would lead to the initial weights only.
            wanted = Wanted(
                wanted.hyperparameters,
                curvature=wanted.curvature and position > 0,
            )
            problem.advance(
                value,
                inner,
                rule,
                wanted,
                draw_seed(source),
                # Of several steps none keeps its graph: see stored.py.
                keep_graph=len(losses) == 1,
                allow_unused=allow_unused,
            )
            first = value.detach() if first is None else first
        if not allow_unused:
            check_reached(reached, problem.hyperparameters, problem.names)
        outer = check_loss(problem.outer(outer_loss), "the outer loss")
        gradients = gradient(outer, problem.hyperparameters)
    if first is None:
        raise ValueError("expected at least one inner loss, got none")
    after = {
        name: value.detach()
        for name, value in zip(problem.weight_names, problem.values, strict=True)
    }
    return Hypergradient(problem.structured(gradients), after, first, outer.detach())


def _one_for_each_step(inner_loss: Loss | Sequence[Loss], steps: int) -> list[Loss]:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(
            f"expected steps to be a whole number of at least 1, got {steps!r}"
        )
    if callable(inner_loss):
        return [inner_loss] * steps
    losses = list(inner_loss)
    if steps not in (1, len(losses)) or not losses:
        raise ValueError(
            f"expected one inner loss for each of {steps} steps, got {len(losses)}"
        )
    return losses


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
) -> BilevelStep:
    """Make one step of online bilevel training: hypergradient, λ step, base step.

    The hypergradient goes through one virtual inner step from the present weights;
    the weights themselves take the base optimizer's step. The two share the inner
    forward pass: where λ enters behind the model's outputs, as sample weights do, only
    what lies behind is computed again with the new λ.

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
    rule = make_update(update, check_positive(lr, "lr"), estimator, processes)
    problem = ModuleProblem(model, named, own_buffers=False)
    _check_apart(base_optimizer, problem.hyperparameters)
    with torch.enable_grad():
        base = _BaseStep(base_optimizer, model, problem, inner_loss, processes)
        value, inner = problem.inner(inner_loss, isinstance(rule, Gradient))
        check_loss(value)
        wanted, reached = assign_roles(inner, problem.hyperparameters, True)
        if not allow_unused:
            check_reached(reached, problem.hyperparameters, problem.names)
        early = base_step == "before" and isinstance(rule, Evolution)
        if early:
            base.differentiate(plain(value))
            base.optimizer.step()
        shared = base_step == "after" and base.share(value)
        new = problem.advance(
            value,
            inner,
            rule,
            wanted,
            processes.common(_seed(generator, rule), problem.values[0].device),
            keep_graph=True,
            allow_unused=allow_unused,
            retain_graph=shared,
            extras=base.extras,
        )
        inner_value = plain(value).detach()
        # Its graph would live through the passes to come.
        del value
        outer = check_loss(problem.outer(outer_loss), "the outer loss")
        hypergradients = gradient(outer, problem.hyperparameters)
        *hypergradients, inner_value, outer = processes.means(
            [*(grad.detach() for grad in hypergradients), inner_value, outer.detach()]
        )
        for tensor, grad in zip(problem.hyperparameters, hypergradients, strict=True):
            tensor.grad = grad
        hyper_optimizer.step()
        if base_step == "after":
            base.differentiate(base.loss_again())
        elif not early:
            base.take(new.gradients, processes.mean(new.extras))
        if not early:
            base.optimizer.step()
    return BilevelStep(inner_value, outer, list(hypergradients))


class _BaseStep:
    """The base optimizer's gradients, from the shared forward pass where it can be."""

    def __init__(
        self,
        optimizer: Optimizer,
        model: nn.Module,
        problem: ModuleProblem,
        inner_loss: Loss,
        processes: Processes,
    ) -> None:
        self.optimizer = optimizer
        self._processes = processes
        self._hyperparameters = problem.hyperparameters
        self._inner_loss = inner_loss
        self._moment = problem.recording.moment()
        self._values = problem.values
        names = set(problem.weight_names)
        self._params = [p for n, p in model.named_parameters() if n in names]
        own = {id(param) for param in self._params}
        self._others = [p for p in _parameters(optimizer) if id(p) not in own]
        self.extras = [p for p in self._others if p.requires_grad]
        self._shared: Program | None = None

    def share(self, value: Tensor) -> bool:
        """Say whether the part behind λ can be computed again on its own."""
        if not isinstance(value, ReplayTensor):
            return False
        positions = {id(t): i for i, t in enumerate(self._hyperparameters)}
        with torch._C.DisableTorchFunctionSubclass():
            try:
                program = Program(value, tensors=positions)
            except LostHistory:
                return False
            # λ that comes in through an ordinary tensor would keep its old value.
            hidden = any(
                any(reaches(tensor, self._hyperparameters)) for tensor in program.inputs
            )
        if hidden or program.calls(ModuleCall):
            return False
        self._shared = program
        return True

    def loss_again(self) -> Tensor:
        """Return the inner loss at the present λ, on the graph of the weights."""
        if self._shared is not None:
            with torch._C.DisableTorchFunctionSubclass():
                return self._shared(self._hyperparameters, self._shared.inputs)
        with self._moment.circumstances.again():
            return self._inner_loss(self._moment.module())

    def differentiate(self, value: Tensor) -> None:
        """Put ∂value/∂θ into ``.grad``, the mean over processes."""
        targets = [*self._values, *self.extras]
        found = torch.autograd.grad(value, targets, allow_unused=True)
        grads = self._processes.mean(found)
        split = len(self._values)
        self.take(grads[:split], grads[split:])

    def take(
        self, gradients: Sequence[Tensor | None], extras: Sequence[Tensor | None]
    ) -> None:
        """Put gradients into ``.grad``, in place of what was there."""
        targets = [*self._params, *self.extras]
        for param, grad in zip(targets, [*gradients, *extras], strict=True):
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


def _seed(generator: torch.Generator | None, rule: Update) -> int:
    if not isinstance(rule.estimator, EvoGrad):
        return 0  # nothing is perturbed, so nothing is drawn
    return draw_seed(torch.default_generator if generator is None else generator)
