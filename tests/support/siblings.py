"""The cases of ``tests/kinds``: data, small modules, and one program run by both."""

import functools
import re

import pytest
import torch
from reference import Reference, derivatives, gap, seed_everything
from torch import nn

from l2l_evograd import EvoGradMetaOptimizer, Exact, Guided

_draw = torch.Generator().manual_seed(5)
X = torch.randn(12, 4, generator=_draw, dtype=torch.float64)
Y = torch.randn(12, 3, generator=_draw, dtype=torch.float64)
LR = 0.1
mse = nn.functional.mse_loss

REFUSALS = (RuntimeError, ValueError, TypeError)
# Loose until the wording is settled: an error says to pass a callable, to keep the
# graph, or to take the exact estimator, or it is autograd's own of an overwritten or
# freed graph.
WHAT_TO_DO = r"(?i)callable|graph|exact|inplace|in place"


def mlp():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


class Variant:
    """Settings of the package, and what may come of them."""

    def __init__(self, name, settings, may_refuse, tolerance=1e-9):
        self.name, self.settings = name, settings
        self.may_refuse, self.tolerance = may_refuse, tolerance


def _each(variants):
    ids = [variant.name for variant in variants]
    return pytest.mark.parametrize("variant", variants, ids=ids)


GRAPH = Variant("graph", {"memory": "graph"}, False)
# Without hyperparameters.
plain_variants = _each(
    [
        Variant("as it comes", {}, False),
        GRAPH,
        Variant("recompute", {"memory": "recompute"}, True),
        Variant("auto", {"memory": "auto", "memory_limit": 0}, True),
    ]
)
# With hyperparameters.
named_variants = _each(
    [
        Variant(
            "exact, on the graph", {"estimator": Exact(), "first_order": False}, False
        ),
        Variant("exact", {"estimator": Exact()}, True),
        Variant("guided", {"estimator": Guided(h=1e-4)}, True, 1e-4),
        Variant("forward", {"estimator": Guided(1e-7, "forward")}, True, 1e-4),
        Variant(
            "guided, second order",
            {"estimator": Guided(h=1e-4), "first_order": False},
            True,
            1e-4,
        ),
    ]
)


def hold(program, variant, *args):
    """Run ``program(make, *args)`` with the package and with the reference.

    ``make(model, **settings)`` gives a meta-learner; the program returns a loss and the
    tensors to differentiate it by, or a list of tensors to compare as they are.

    Returns:
        Whether there was a number to compare, and no refusal.
    """
    truth = _run(program, Reference, variant, args)
    if not variant.may_refuse:
        found = _run(program, EvoGradMetaOptimizer, variant, args)
    else:
        try:
            found = _run(program, EvoGradMetaOptimizer, variant, args)
        except REFUSALS as error:
            assert re.search(WHAT_TO_DO, str(error)), str(error)
            return False
    error = gap(found, truth)
    assert error < variant.tolerance, f"off by {error:.2g} of the largest entry"
    return True


def _run(program, algorithm, variant, args):
    seed_everything(7)
    make = functools.partial(_make, algorithm, variant.settings)
    result = program(make, *args)
    if isinstance(result, list):
        return [tensor.detach() for tensor in result]
    loss, targets = result
    return [*derivatives(loss, targets), loss.detach()]


def _make(algorithm, settings, model, **given):
    return algorithm(model, **{"lr": LR, **settings, **given})


def adapted_twice(make, model):
    """Two steps on the mean loss, and the weights to differentiate the result by."""
    learner = make(model).clone()
    for _ in range(2):
        learner.adapt(mse(learner(X[:6]), Y[:6]))
    return mse(learner(X[6:]), Y[6:]), list(model.parameters())


def weighted_twice(make, model):
    """Two steps on a loss with sample weights, and these weights."""
    lam = torch.full((6,), 0.3, requires_grad=True)
    learner = make(model, hyperparameters=lam).clone()
    for _ in range(2):
        losses = (learner(X[:6]) - Y[:6]).square().mean(1)
        learner.adapt((lam * losses).mean())
    return mse(learner(X[6:]), Y[6:]), [lam]
