"""What learn2learn 0.2.0 tests of its Meta-SGD, held by both classes."""

import pytest
import torch
from learn2learn.algorithms import MetaSGD
from learn2learn_model import small_model
from torch import nn

from l2l_evograd import EvoGradMetaOptimizer

pytestmark = pytest.mark.usefixtures("float64")
LR = 0.1


def learned_rates(model, lr, first_order):
    rates = [nn.Parameter(torch.full_like(p, lr)) for p in model.parameters()]
    return EvoGradMetaOptimizer(model, lr=rates, first_order=first_order)


algorithms = pytest.mark.parametrize("algorithm", [MetaSGD, learned_rates])
orders = pytest.mark.parametrize("first_order", [False, True])


def problem(algorithm, first_order=False):
    model, x = small_model()
    return algorithm(model, lr=LR, first_order=first_order), x


@algorithms
@orders
def test_clones_compute_what_the_model_computes(algorithm, first_order):
    meta, x = problem(algorithm, first_order)
    for learner in (meta.clone(), meta.clone()):
        assert torch.allclose(learner(x), meta.module(x), rtol=0, atol=1e-12)


@algorithms
def test_a_clone_is_on_the_graph_of_the_original(algorithm):
    meta, x = problem(algorithm)
    meta.clone()(x).norm().backward()
    assert all(p.grad.norm() > 0 for p in meta.module.parameters())


@algorithms
def test_there_is_a_rate_for_each_weight(algorithm):
    meta, _ = problem(algorithm)
    weights = sum(p.numel() for p in meta.module.parameters())
    assert sum(p.numel() for p in meta.parameters()) == 2 * weights
    own = {id(p) for p in meta.module.parameters()}
    rates = [p for p in meta.parameters() if id(p) not in own]
    assert all(bool((rate == LR).all()) for rate in rates)


@algorithms
@orders
def test_adapting_lowers_the_loss_and_reaches_weights_and_rates(algorithm, first_order):
    meta, x = problem(algorithm, first_order)
    learner = meta.clone()
    before = learner(x).norm()
    learner.adapt(before)
    after = learner(x).norm()
    assert after <= before
    after.backward()
    assert all(p.grad.norm() > 0 for p in meta.parameters())


@orders
def test_both_have_the_same_gradients(first_order):
    found = []
    for algorithm in (MetaSGD, learned_rates):
        meta, x = problem(algorithm, first_order)
        learner = meta.clone()
        for _ in range(3):
            learner.adapt(learner(x[:4]).norm())
        learner(x[4:]).norm().backward()
        own = {id(p) for p in meta.module.parameters()}
        parts = [
            [p.grad for p in meta.parameters() if (id(p) in own) is inside]
            for inside in (True, False)
        ]
        found.append([*parts[0], *parts[1]])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-13)
