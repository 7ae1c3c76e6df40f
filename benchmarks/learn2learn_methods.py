"""Iterations of a bilevel problem by learn2learn: a clone and a differentiable update.

``MAML.adapt`` would step λ inside a model along with θ, so its two parts are called one
by one: ``clone_module`` and ``maml_update``.
"""

import torch
from learn2learn.algorithms.maml import maml_update
from learn2learn.utils import clone_module
from torch import Tensor

from benchmarks.methods import Method, gradient, step_both
from benchmarks.problems import Bilevel


def second_order(problem: Bilevel) -> list[Tensor]:
    """Make one iteration with the exact hypergradient."""
    chosen = {id(weight) for weight in problem.weights}
    own = [id(p) in chosen for p in problem.model.parameters()]
    net = clone_module(problem.model)
    weights = [p for p, is_own in zip(net.parameters(), own, strict=True) if is_own]
    slopes = torch.autograd.grad(problem.inner(net), weights, create_graph=True)
    rest = iter(slopes)
    maml_update(net, problem.lr, [next(rest) if is_own else None for is_own in own])
    found = gradient(problem.outer(net), problem.hyperparameters)
    if problem.base_step == "before":
        return step_both(problem, found, [slope.detach() for slope in slopes])
    return step_both(problem, found)


def first_order(problem: Bilevel) -> list[Tensor]:
    """Refuse: a first-order step is a constant to λ."""
    del problem
    raise NotImplementedError(
        "first order drops what the step depends on, and λ with it: the gradient is 0"
    )


METHODS: dict[str, Method] = {
    "learn2learn, second order": second_order,
    "learn2learn, first order": first_order,
}
