import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from l2l_evograd import EvoGradMetaOptimizer, Exact, Guided, hypergradient
from l2l_evograd.oracle.exact import by_double_backward
from l2l_evograd.oracle.unrolled import Unrolled
from l2l_evograd.replay.wrong_derivatives import (
    RightTwice,
    normalises_weights,
    warn_of_wrong_derivatives,
    weight_norm,
)

X = torch.linspace(-1, 1, 32, dtype=torch.float64).view(8, 4).sin()
Y = torch.linspace(-2, 1, 16, dtype=torch.float64).view(8, 2).cos()


def network():
    torch.manual_seed(0)
    first = parametrizations.weight_norm(nn.Linear(4, 6))
    return nn.Sequential(first, nn.Tanh(), nn.Linear(6, 2)).double()


def losses(lam):
    def inner(view):
        return (view(X * lam.exp()) - Y).square().mean()

    return inner, lambda view: (view(X) - Y).square().mean()


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_weight_normalisation_in_ordinary_operations(dim):
    torch.manual_seed(0)
    v = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    size = torch.norm_except_dim(v, 2, dim).detach() * 1.5
    g = size.requires_grad_()
    assert torch.allclose(weight_norm(v, g, dim), torch._weight_norm(v, g, dim))
    assert torch.autograd.gradgradcheck(lambda *a: weight_norm(*a, dim), (v, g))
    with RightTwice():
        inside = torch._weight_norm(v, g, dim)
    assert "WeightNorm" not in inside.grad_fn.name()


@pytest.mark.parametrize("mode", ["auto", "forward", "reverse"])
@pytest.mark.parametrize("memory", ["graph", "recompute"])
def test_exact_is_the_derivative_through_weight_normalisation(mode, memory):
    model, lam = network(), torch.zeros(4, dtype=torch.float64, requires_grad=True)
    inner, outer = losses(lam)
    problem = Unrolled(model, inner, outer, lam, 0.3, 2)
    expected = []
    for place in range(4):
        ends = []
        for distance in (-1e-5, 1e-5):
            unit = torch.eye(4, dtype=torch.float64)[place]
            with problem.moved([unit], distance):
                ends.append(problem.outer_value())
        expected.append((ends[0] - ends[1]) / 2e-5)
    found = hypergradient(
        inner, outer, model, lam, lr=0.3, steps=2, estimator=Exact(mode),
        first_order=False, memory=memory,
    )  # fmt: skip
    assert found.gradients.tolist() == pytest.approx(expected, rel=1e-6)
    assert by_double_backward(problem)[0].tolist() == pytest.approx(expected, rel=1e-6)


def test_a_second_order_meta_gradient_is_right_through_weight_normalisation():
    model = network()
    meta = EvoGradMetaOptimizer(model, 0.3, first_order=False)
    inner, outer = losses(torch.zeros((), dtype=torch.float64))

    def after_two_steps():
        learner = meta.clone()
        for _ in range(2):
            learner.adapt(inner(learner))
        return outer(learner)

    after_two_steps().backward()
    (place,) = (p for n, p in model.named_parameters() if n.endswith("original1"))
    ends = []
    for distance in (1e-5, -2e-5):
        place.data[0, 0] += distance
        ends.append(float(after_two_steps().detach()))
    expected = (ends[0] - ends[1]) / 2e-5
    assert float(place.grad[0, 0]) == pytest.approx(expected, rel=1e-7)


def test_a_call_outside_of_modules_is_warned_of():
    v = torch.randn(3, 4, requires_grad=True)
    loss = torch._weight_norm(v, torch.ones(3, 1), 0).sum()
    with pytest.warns(UserWarning, match="second derivative of weight normalisation"):
        warn_of_wrong_derivatives([loss])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_wrong_derivatives([loss], twice=False)


@pytest.mark.parametrize("estimator", [Guided(), Exact()])
def test_an_embedding_that_scales_its_gradient_is_warned_of(estimator):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(3, 4, scale_grad_by_freq=True), nn.Linear(4, 1))
    words, lam = torch.tensor([0, 0, 1]), torch.zeros(3, requires_grad=True)

    def inner(view):
        return (lam.sigmoid() * view(words).squeeze(1).square()).mean()

    with pytest.warns(UserWarning, match="scale_grad_by_freq=False"):
        hypergradient(
            inner, lambda view: view(words[1:]).mean(), model, lam, lr=0.1,
            estimator=estimator, allow_unused=True,
        )  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_which_modules_normalise_weights():
    assert normalises_weights(network())
    assert normalises_weights(nn.Sequential(nn.utils.weight_norm(nn.Linear(2, 2))))
    assert not normalises_weights(nn.Linear(2, 2))
