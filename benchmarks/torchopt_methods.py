"""One iteration by TorchOpt: through an unrolled step, and by implicit differentiation.

Implicit differentiation needs an optimum. The step θ' = θ₀ − η ∇ℓ(θ₀, λ) is not an
optimum of ℓ, but it is close to an optimum of ℓ(θ, λ) + ‖θ − θ₀‖²/2η. The implicit
gradient of that objective tends to the gradient of the step as η → 0. The methods here
use that objective in place of the step. For MAML they use it with η times the number of
steps in place of the inner loop.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torchopt
from torch import Tensor, nn
from torchopt.diff.implicit import custom_root
from torchopt.nn.stateless import reparametrize

from benchmarks.maml_tasks import MamlMethod, MamlTask, apply_gradients, task_loss
from benchmarks.meta_batches import MetaBatch, MetaBatchMethod
from benchmarks.methods import At, BilevelMethod, gradient, step_both
from benchmarks.problems import Bilevel

# Iterations of CG, the same number as Betty's default. Each iteration costs one
# Hessian-vector product.
SOLVER_ITERATIONS = 1

Tensors = tuple[Tensor, ...]
Objective = Callable[[Tensors, Tensors], Tensor]


def unrolled(problem: Bilevel) -> list[Tensor]:
    """Make one iteration with the exact hypergradient through a ``MetaSGD`` step."""
    kept: list[Tensor] = []
    rule: Any = torchopt.sgd(problem.lr, moment_requires_grad=True)
    if problem.base_step == "before":
        rule = torchopt.combine.chain(_keeper(kept), rule)
    # The same as MetaSGD, with the transformation that stores the gradients.
    optimizer = torchopt.MetaOptimizer(_owners(problem), rule)
    # TorchOpt flattens parameters in an order of its own.
    order = torchopt.pytree.tree_leaves(optimizer.param_containers_groups)
    before = _state(problem.model)
    optimizer.step(problem.inner(problem.model))
    found = gradient(problem.outer(problem.model), problem.hyperparameters)
    torchopt.recover_state_dict(problem.model, before)
    if not kept:
        return step_both(problem, found)
    own = {id(weight): slope for weight, slope in zip(order, kept, strict=True)}
    return step_both(problem, found, [own[id(weight)] for weight in problem.weights])


def implicit(problem: Bilevel) -> list[Tensor]:
    """Make one iteration with the implicit hypergradient, solved by CG."""
    inner = problem.inner(problem.model)
    slopes = torch.autograd.grad(inner, problem.weights)
    start = tuple(weight.detach().clone() for weight in problem.weights)
    stepped = tuple(w - problem.lr * g for w, g in zip(start, slopes, strict=True))

    def objective(weights: Tensors, hyperparameters: Tensors) -> Tensor:
        with _placed(problem, weights, hyperparameters):
            loss = problem.inner(problem.model)
        return loss + _distance(weights, start) / (2 * problem.lr)

    solved = _implicitly(objective, stepped, problem.hyperparameters)
    names = {id(p): name for name, p in problem.model.named_parameters()}
    merged = {names[id(w)]: s for w, s in zip(problem.weights, solved, strict=True)}
    outer = problem.outer(At(problem.model, merged))
    found = _solved_gradient(outer, problem.hyperparameters)
    return step_both(problem, found, slopes if problem.base_step == "before" else None)


def maml_unrolled(task: MamlTask) -> list[Tensor]:
    """Make one meta-step through unrolled ``MetaSGD`` steps."""
    weights = task.weights  # taken first, because MetaSGD replaces the model's weights
    optimizer = torchopt.MetaSGD(task.model, lr=task.lr)
    before = _state(task.model)
    for _ in range(task.steps):
        optimizer.step(task_loss(task.model, task.support))
    found = gradient(task_loss(task.model, task.query), weights)
    torchopt.recover_state_dict(task.model, before)
    return apply_gradients(task, found)


def meta_batch_unrolled(batch: MetaBatch) -> list[Tensor]:
    """Make one meta-step on a meta-batch through unrolled ``MetaSGD`` steps."""
    weights = batch.weights  # taken first, because MetaSGD replaces the model's weights
    optimizer = torchopt.MetaSGD(batch.model, lr=batch.lr)
    model, rule = _state(batch.model), _state(optimizer)
    total = [torch.zeros_like(weight) for weight in weights]
    for support, query in batch.tasks():
        for _ in range(batch.steps):
            optimizer.step(batch.loss(batch.model, support))
        found = gradient(batch.loss(batch.model, query) / batch.count, weights)
        total = [have + own for have, own in zip(total, found, strict=True)]
        torchopt.recover_state_dict(batch.model, model)
        torchopt.recover_state_dict(optimizer, rule)
    return apply_gradients(batch, total)


def maml_implicit(task: MamlTask) -> list[Tensor]:
    """Make one meta-step of implicit MAML, solved by CG.

    Source: Rajeswaran, Finn, Kakade, Levine, "Meta-Learning with Implicit Gradients",
    NeurIPS 2019.
    """
    weights, scale = task.weights, 1 / (task.lr * task.steps)
    names = [name for name, _ in task.model.named_parameters()]

    def objective(inner: Tensors, initial: Tensors) -> Tensor:
        own = dict(zip(names, inner, strict=True))
        with reparametrize(task.model, {**own, **_buffers(task.model)}):
            loss = task_loss(task.model, task.support)
        return loss + scale * _distance(inner, initial) / 2

    start = tuple(weight.detach() for weight in weights)
    stepped = tuple(weight.clone() for weight in start)
    for _ in range(task.steps):
        leaves = tuple(weight.requires_grad_() for weight in stepped)
        slopes = torch.autograd.grad(objective(leaves, start), leaves)
        pairs = zip(leaves, slopes, strict=True)
        stepped = tuple((w - task.lr * slope).detach() for w, slope in pairs)
    solved = _implicitly(objective, stepped, weights)
    view = At(task.model, dict(zip(names, solved, strict=True)))
    loss = task_loss(view, task.query)
    return apply_gradients(task, _solved_gradient(loss, weights))


def _implicitly(
    objective: Objective, solution: Tensors, hyperparameters: Sequence[Tensor]
) -> Tensors:
    """Return the minimiser of an objective as an implicit function of λ.

    Args:
        objective: function of the weights and of λ.
        solution: the minimiser at the present λ.
        hyperparameters: the present λ.
    """
    solve = torchopt.linear_solve.solve_cg(maxiter=SOLVER_ITERATIONS, atol=0.0)

    def optimality(weights: Tensors, hyperparameters: Tensors) -> Tensors:
        found: Tensors = torch.func.grad(objective)(weights, hyperparameters)
        return found

    @custom_root(optimality, argnums=1, solve=solve)
    def solver(start: Tensors, hyperparameters: Tensors) -> Tensors:
        del hyperparameters
        return start

    solved: Tensors = solver(solution, tuple(hyperparameters))
    return solved


def _solved_gradient(loss: Tensor, targets: Sequence[Tensor]) -> list[Tensor]:
    """Return ∂loss/∂targets; the backward pass solves TorchOpt's linear system."""
    with warnings.catch_warnings():
        # TorchOpt uses a name of functorch that PyTorch has deprecated.
        warnings.simplefilter("ignore", FutureWarning)
        return gradient(loss, targets)


@contextmanager
def _placed(
    problem: Bilevel, weights: Tensors, hyperparameters: Tensors
) -> Iterator[None]:
    """Replace θ and λ by other tensors for the body."""
    tensors = [*problem.weights, *problem.hyperparameters]
    values = [*weights, *hyperparameters]
    new = {id(t): value for t, value in zip(tensors, values, strict=True)}
    modules = [problem.model]
    if problem.outside is not None:
        modules.append(problem.outside)
    with ExitStack() as stack:
        for module in modules:
            named = module.named_parameters()
            own = {name: new[id(p)] for name, p in named if id(p) in new}
            stack.enter_context(reparametrize(module, {**own, **_buffers(module)}))
        yield


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the buffers, because torch.func cannot change the model's."""
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def _distance(weights: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    pairs = zip(weights, others, strict=True)
    return torch.stack([(w - other).square().sum() for w, other in pairs]).sum()


def _state(target: Any) -> Any:
    """Return the tensors of a model or meta-optimizer, to restore them later.

    The buffers of a model are copied.
    """
    return torchopt.extract_state_dict(target, by="reference", detach_buffers=True)


def _owners(problem: Bilevel) -> nn.ModuleList:
    """Return the modules that hold θ, because a ``MetaOptimizer`` takes modules."""
    chosen = {id(weight) for weight in problem.weights}
    owners = nn.ModuleList()
    for module in problem.model.modules():
        own = list(module.parameters(recurse=False))
        if own and id(own[0]) in chosen:
            owners.append(module)
    held = [id(parameter) for parameter in owners.parameters()]
    if set(held) != chosen:
        raise ValueError("expected θ and λ in different modules, got both in one")
    return owners


def _keeper(kept: list[Tensor]) -> Any:
    """Return a gradient transformation that stores the gradients in ``kept``."""

    def update(
        updates: Any, state: Any, *, params: Any = None, inplace: bool = True
    ) -> tuple[Any, Any]:
        del params, inplace
        kept.extend(slope.detach() for slope in torchopt.pytree.tree_leaves(updates))
        return updates, state

    initial = torchopt.base.EmptyState()
    return torchopt.base.GradientTransformation(lambda params: initial, update)


METHODS: dict[str, BilevelMethod] = {
    "TorchOpt, unrolled": unrolled,
    "TorchOpt, implicit": implicit,
}
MAML_METHODS: dict[str, MamlMethod] = {
    "TorchOpt, unrolled": maml_unrolled,
    "TorchOpt, implicit": maml_implicit,
}
META_BATCH_METHODS: dict[str, MetaBatchMethod] = {
    "TorchOpt, unrolled": meta_batch_unrolled,
}
