"""Learned inner learning rates, against learn2learn's MetaSGD."""

import copy
import pickle

import learn2learn as l2l
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from l2l_evograd import EvoGradMetaOptimizer
from l2l_evograd.updates.learning_rates import as_attribute, matched

pytestmark = pytest.mark.usefixtures("float64")


def data():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    return model, torch.randn(7, 4), torch.arange(7) % 3


def rates_for(model):
    return nn.ParameterList([torch.rand_like(p) * 0.3 for p in model.parameters()])


def loss_after(meta, x, y, steps=2):
    learner = meta.clone()
    for _ in range(steps):
        learner.adapt(F.cross_entropy(learner(x), y))
    return F.cross_entropy(learner(x + 1), y)


def close(found, expected):
    pairs = zip(found, expected, strict=True)
    return all(torch.allclose(a.grad, b.grad, rtol=1e-9, atol=1e-12) for a, b in pairs)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_rate_for_each_weight_gives_the_gradients_of_meta_sgd(first_order, steps):
    model, x, y = data()
    rates = rates_for(model)
    theirs = l2l.algorithms.MetaSGD(
        copy.deepcopy(model), first_order=first_order, lrs=copy.deepcopy(rates)
    )
    ours = EvoGradMetaOptimizer(model, lr=rates, first_order=first_order)
    found, expected = loss_after(ours, x, y, steps), loss_after(theirs, x, y, steps)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    found.backward()
    expected.backward()
    assert close(model.parameters(), theirs.module.parameters())
    assert close(rates, theirs.lrs)


def test_one_rate_for_all_and_one_for_each_layer_agree_with_a_finite_difference():
    model, x, y = data()
    shared = torch.tensor(0.2, requires_grad=True)
    layers = [torch.full((1,), 0.2, requires_grad=True) for _ in model.parameters()]
    for lr in (shared, layers):
        loss_after(EvoGradMetaOptimizer(model, lr=lr, first_order=False), x, y)
        loss_after(EvoGradMetaOptimizer(model, lr=lr), x, y).backward()

    def at(rate):
        return float(loss_after(EvoGradMetaOptimizer(model, lr=rate), x, y).detach())

    slope = (at(0.2 + 1e-5) - at(0.2 - 1e-5)) / 2e-5
    assert float(shared.grad) == pytest.approx(slope, rel=1e-7)
    assert sum(float(r.grad) for r in layers) == pytest.approx(slope, rel=1e-7)


@pytest.mark.parametrize("estimator", ["guided", "exact"])
def test_hyperparameters_get_their_gradient_through_learned_rates(estimator):
    model, x, y = data()
    lam = torch.zeros(7, requires_grad=True)
    rates = rates_for(model)

    def loss(shift):
        meta = EvoGradMetaOptimizer(
            model, lr=rates, hyperparameters=lam, estimator=estimator
        )
        learner = meta.clone()
        losses = F.cross_entropy(learner(x), y, reduction="none")
        learner.adapt(((lam + shift).exp() * losses).mean())
        return F.cross_entropy(learner(x + 1), y)

    loss(0.0).backward()
    ends = [float(loss(sign * 1e-5).detach()) for sign in (1, -1)]
    slope = (ends[0] - ends[1]) / 2e-5
    exact = estimator == "exact"
    assert float(lam.grad.sum()) == pytest.approx(slope, rel=1e-7 if exact else 1e-3)


def test_parameters_as_rates_belong_to_the_algorithm():
    model, x, y = data()
    meta = EvoGradMetaOptimizer(model, lr=list(rates_for(model)))
    assert {"module.0.weight", "lr.0", "lr.3"} <= set(meta.state_dict())
    assert len(list(meta.parameters())) == 8
    for other in (copy.deepcopy(meta), pickle.loads(pickle.dumps(meta))):
        loss_after(other, x, y).backward()
        assert all(p.grad is not None for p in other.parameters())
    assert all(p.grad is None for p in meta.parameters())


def test_a_rate_changed_before_backward_matters_at_second_order_alone():
    model, x, y = data()
    rates = rates_for(model)
    first, changed, second = (
        loss_after(EvoGradMetaOptimizer(model, lr=rates, first_order=order), x, y)
        for order in (True, True, False)
    )
    expected = torch.autograd.grad(first, [*model.parameters(), *rates])
    with torch.no_grad():
        rates[0].mul_(2)
    found = torch.autograd.grad(changed, [*model.parameters(), *rates])
    assert all(map(torch.equal, found, expected))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        second.backward()


@pytest.mark.parametrize(
    "lr", [1, np.float32(0.5), np.int64(1), torch.tensor(1), torch.tensor(1).int()]
)
def test_a_number_of_any_kind_is_a_rate(lr):
    model, x, y = data()
    meta = EvoGradMetaOptimizer(model, lr=lr)
    assert type(meta.lr) is float and meta.lr == float(lr)
    found = loss_after(meta, x, y)
    assert torch.equal(found, loss_after(EvoGradMetaOptimizer(model, float(lr)), x, y))


def test_a_rate_may_be_set_anew_between_steps():
    model, x, y = data()
    meta = EvoGradMetaOptimizer(model, lr=0.1)
    learner = meta.clone()
    for rate in (0.2, torch.tensor(0.2), np.float64(0.2)):
        learner.lr = rate
        learner.adapt(F.cross_entropy(learner(x), y))
    expected = EvoGradMetaOptimizer(model, lr=0.2).clone()
    for _ in range(3):
        expected.adapt(F.cross_entropy(expected(x), y))
    for one, other in zip(learner.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-12)


def test_rates_are_matched_to_parameters():
    params = [torch.zeros(2, 3), torch.zeros(3)]
    names = ["weight", "bias"]
    assert matched(0.1, lambda: names, params) == 0.1
    shared = torch.tensor(0.1)
    assert matched(shared, lambda: names, params) == [shared, shared]
    own = [torch.ones(3), torch.ones(())]
    found = matched(tuple(own), lambda: names, params)
    assert all(a is b for a, b in zip(found, own, strict=True))
    assert isinstance(as_attribute([nn.Parameter(t) for t in own]), nn.ParameterList)
    assert isinstance(as_attribute(own), list)
    with pytest.raises(ValueError, match="rate of bias .*shape"):
        matched([torch.ones(3), torch.ones(2)], lambda: names, params)
    with pytest.raises(ValueError, match="lr to be positive and finite, got -1"):
        matched(-1, lambda: names, params)


@pytest.mark.parametrize(
    ("lr", "error", "match"),
    [
        ([torch.ones(())] * 3, ValueError, "each of the 4 adapted parameters, got 3"),
        (
            [torch.ones(5)] * 4,
            ValueError,
            r"rate of 0\.weight .*shape \(6, 4\).*\(5,\)",
        ),
        (torch.ones(2, 2, 2), ValueError, "broadcasts to it"),
        ([0.1] * 4, TypeError, "tensors of floats, got float"),
        (torch.ones(2).int(), TypeError, "tensors of floats, got torch.int32"),
        (torch.tensor(0), ValueError, "positive and finite, got 0"),
        (np.float32(0), ValueError, "positive and finite"),
        ([], ValueError, "positive and finite"),
        ("0.1", ValueError, "positive and finite"),
    ],
)
def test_rates_that_do_not_fit_are_refused(lr, error, match):
    with pytest.raises(error, match=match):
        EvoGradMetaOptimizer(data()[0], lr=lr)


def test_rates_do_not_go_with_evolution():
    with pytest.raises(ValueError, match="use update='gradient' for learned rates"):
        EvoGradMetaOptimizer(data()[0], lr=torch.tensor(0.1), update="evolution")
