"""One iteration of a bilevel problem by learn2learn.

``MAML.adapt`` would also step the hyperparameters inside a model. The methods here
therefore call its two parts themselves: ``clone_module`` and ``maml_update``.
"""

import torch
from torch import Tensor

from benchmarks.methods import BilevelMethod, gradient, step_both
from benchmarks.problems import Bilevel
from l2l_evograd.experiments.from_learn2learn import l2l


def second_order(problem: Bilevel) -> list[Tensor]:
    """Make one iteration with the exact hypergradient."""
    chosen = {id(weight) for weight in problem.weights}
    own = [id(p) in chosen for p in problem.model.parameters()]
    net = l2l.clone_module(problem.model)
    weights = [p for p, is_own in zip(net.parameters(), own, strict=True) if is_own]
    slopes = torch.autograd.grad(problem.inner(net), weights, create_graph=True)
    rest = iter(slopes)
    updates = [next(rest) if is_own else None for is_own in own]
    l2l.algorithms.maml_update(net, problem.lr, updates)
    found = gradient(problem.outer(net), problem.hyperparameters)
    if problem.base_step == "before":
        return step_both(problem, found, [slope.detach() for slope in slopes])
    return step_both(problem, found)


def first_order(problem: Bilevel) -> list[Tensor]:
    """Raise an error: a first-order step does not depend on λ."""
    del problem
    raise NotImplementedError(
        "a first-order step is a constant with respect to λ: its hypergradient is 0"
    )


METHODS: dict[str, BilevelMethod] = {
    "learn2learn, second order": second_order,
    "learn2learn, first order": first_order,
}
