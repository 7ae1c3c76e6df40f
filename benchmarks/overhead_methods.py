"""Several methods to compute gradients of a small task.

A method takes a :class:`~benchmarks.overhead_tasks.Task` and returns a function without
arguments. Each call of that function computes the gradients anew and returns them. What
a script does only once, such as wrapping the model, happens before the first call.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import higher
import torch
from torch import Tensor
from torch.optim import SGD

from benchmarks.overhead_tasks import Task
from l2l_evograd import EvoGrad, EvoGradMetaOptimizer, Guided, hypergradient
from l2l_evograd.experiments.from_learn2learn import l2l

Call = Callable[[], Sequence[Tensor | None]]
Estimator = EvoGrad | Guided


def gradient_by_wrapper(
    wrapper: Callable[..., Any], steps: int, first_order: bool, task: Task
) -> Call:
    """Return a function that runs learn2learn's loop: clone, adapt, backward.

    Args:
        wrapper: ``MAML``, or a class with the same interface.
        steps: number of inner steps.
        first_order: whether to ignore second derivatives of the inner loss.
        task: the task.
    """
    meta = wrapper(task.model, task.lr, first_order=first_order)

    def call() -> Sequence[Tensor | None]:
        meta.zero_grad()
        learner = meta.clone()
        for _ in range(steps):
            learner.adapt(task.inner(learner))
        task.outer(learner).backward()
        return [param.grad for param in task.model.parameters()]

    return call


def gradient_by_higher(steps: int, first_order: bool, task: Task) -> Call:
    """Return a function that uses ``higher``.

    With ``first_order`` it takes the gradient at the weights after the last step.
    """
    optimizer = SGD(task.model.parameters(), lr=task.lr)
    initial = list(task.model.parameters())

    def call() -> Sequence[Tensor | None]:
        with higher.innerloop_ctx(
            task.model,
            optimizer,
            copy_initial_weights=False,
            track_higher_grads=not first_order,
        ) as (net, inner_optimizer):
            for _ in range(steps):
                inner_optimizer.step(task.inner(net))
            targets = list(net.parameters()) if first_order else initial
            return torch.autograd.grad(task.outer(net), targets)

    return call


def gradient_by_hand(steps: int, first_order: bool, task: Task) -> Call:
    """Return a function that uses only ``functional_call`` and ``grad``."""
    initial = dict(task.model.named_parameters())

    def call() -> Sequence[Tensor | None]:
        params: dict[str, Tensor] = dict(initial)
        for _ in range(steps):
            slopes = torch.autograd.grad(
                task.inner(task.at(params)),
                list(params.values()),
                create_graph=not first_order,
            )
            params = _stepped(params, slopes, task.lr)
        outer = task.outer(task.at(params))
        return torch.autograd.grad(outer, list(initial.values()))

    return call


def hypergradient_by_hand(estimator: Estimator, task: Task) -> Call:
    """Return a function that computes the estimate by hand, for a single λ.

    It makes the same passes as this package: the inner gradient, v, and at each
    perturbed θ the gradient of the inner loss with respect to λ only.
    """
    initial = dict(task.model.named_parameters())
    estimate = _guided if isinstance(estimator, Guided) else _evograd

    def call() -> Sequence[Tensor | None]:
        inner = task.weighted(task.at(initial), task.weights)
        slopes = torch.autograd.grad(inner, list(initial.values()))
        params = {name: param.detach() for name, param in initial.items()}
        new = {
            name: value.requires_grad_()
            for name, value in _stepped(params, slopes, task.lr).items()
        }
        v = torch.autograd.grad(task.outer(task.at(new)), list(new.values()))
        return [-task.lr * estimate(estimator, task, params, v)]

    return call


def _guided(
    estimator: Any, task: Task, params: dict[str, Tensor], v: Sequence[Tensor]
) -> Tensor:
    norm = torch.stack([(part * part).sum() for part in v]).sum().sqrt()
    step = estimator.h / norm
    above, below = (
        _to_weights(task, _stepped(params, v, sign * step)) for sign in (-1, 1)
    )
    return norm * (above - below) / (2 * estimator.h)


def _evograd(
    estimator: Any, task: Task, params: dict[str, Tensor], v: Sequence[Tensor]
) -> Tensor:
    sigma, count = estimator.sigma, estimator.n_model_candidates
    scores, slopes = [], []
    for _ in range(count):
        noise = [
            sigma * (2 * torch.randint_like(param, 2) - 1) for param in params.values()
        ]
        scores.append(sum((a * b).sum() for a, b in zip(v, noise, strict=True)))
        slopes.append(_to_weights(task, _stepped(params, noise, -1)))
    s = torch.stack(scores)
    return (s - s.mean()) @ torch.stack(slopes) / ((count - 1) * sigma**2)


def _to_weights(task: Task, params: dict[str, Tensor]) -> Tensor:
    loss = task.weighted(task.at(params), task.weights)
    return torch.autograd.grad(loss, task.weights)[0]


def _stepped(
    params: Mapping[str, Tensor], slopes: Sequence[Tensor], lr: float | Tensor
) -> dict[str, Tensor]:
    pairs = zip(params.items(), slopes, strict=True)
    return {name: param - lr * slope for (name, param), slope in pairs}


def hypergradient_by_learner(estimator: Estimator, task: Task) -> Call:
    """Return a function that uses ``EvoGradMetaOptimizer``: clone, adapt, backward."""
    meta = EvoGradMetaOptimizer(
        task.model, task.lr, hyperparameters=[task.weights], estimator=estimator
    )

    def call() -> Sequence[Tensor | None]:
        meta.zero_grad()
        task.weights.grad = None
        learner = meta.clone()
        learner.adapt(task.weighted(learner, task.weights))
        task.outer(learner).backward()
        return [task.weights.grad]

    return call


def hypergradient_of_dict(estimator: Estimator, task: Task) -> Call:
    """Return a function that uses ``hypergradient()`` on a dict of weights."""
    params = dict(task.model.named_parameters())

    def call() -> Sequence[Tensor | None]:
        found = hypergradient(
            lambda params, weights: task.weighted(task.at(params), weights),
            lambda params, _: task.outer(task.at(params)),
            params,
            task.weights,
            lr=task.lr,
            estimator=estimator,
        )
        return [found.gradients]

    return call


def hypergradient_of_module(estimator: Estimator, task: Task) -> Call:
    """Return a function that uses ``hypergradient()`` on the module."""

    def call() -> Sequence[Tensor | None]:
        found = hypergradient(
            lambda view: task.weighted(view, task.weights),
            task.outer,
            task.model,
            [task.weights],
            lr=task.lr,
            estimator=estimator,
        )
        return found.gradients

    return call


GradientMethod = Callable[[Task], Call]

LEARN2LEARN, HIGHER, BY_HAND = "learn2learn", "higher", "by hand"
OURS, LEARNER = "l2l_evograd", "l2l_evograd, learner"
OF_DICT, OF_MODULE = "hypergradient(), dict", "hypergradient(), module"


def gradient_methods(steps: int, first_order: bool) -> dict[str, GradientMethod]:
    """Return the methods for the gradient with respect to the initial weights."""
    maml, ours = l2l.algorithms.MAML, EvoGradMetaOptimizer
    return {
        LEARN2LEARN: partial(gradient_by_wrapper, maml, steps, first_order),
        HIGHER: partial(gradient_by_higher, steps, first_order),
        BY_HAND: partial(gradient_by_hand, steps, first_order),
        OURS: partial(gradient_by_wrapper, ours, steps, first_order),
    }


def hypergradient_methods(estimator: Estimator) -> dict[str, GradientMethod]:
    """Return the methods for one estimate of the gradient with respect to λ."""
    return {
        BY_HAND: partial(hypergradient_by_hand, estimator),
        LEARNER: partial(hypergradient_by_learner, estimator),
        OF_DICT: partial(hypergradient_of_dict, estimator),
        OF_MODULE: partial(hypergradient_of_module, estimator),
    }
