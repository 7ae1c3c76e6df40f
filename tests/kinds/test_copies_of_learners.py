"""Copies and pickles of the original and of learners."""

import copy
import pickle

import pytest
import torch
from reference import Reference, derivatives, detach, gap, inside, weights
from siblings import X, Y, hold, mlp, mse, plain_variants
from torch import nn

from l2l_evograd import EvoGradMetaOptimizer, Exact, Guided

pytestmark = pytest.mark.usefixtures("float64")


def copied(meta):
    return copy.deepcopy(meta)


def pickled(meta):
    return copy.deepcopy(meta) if isinstance(meta, Reference) else again(meta)


def again(meta):
    return pickle.loads(pickle.dumps(meta))


@plain_variants
@pytest.mark.parametrize("copying", [copied, pickled])
def test_a_copy_of_the_original_meta_learns_on_its_own(copying, variant):
    def program(make):
        model = mlp()
        meta = copying(make(model))
        inner = meta.clone()
        inner.adapt(mse(inner(X[:6]), Y[:6]))
        owner = meta.model if isinstance(meta, Reference) else meta.module
        loss = mse(inner(X[6:]), Y[6:])
        return loss, [*owner.parameters(), *model.parameters()]

    hold(program, variant)


@plain_variants
@pytest.mark.parametrize("first_order", [False, True])
def test_a_copy_of_the_original_adapts_in_the_place_of_a_clone(first_order, variant):
    def program(make):
        meta = make(mlp())
        learner = meta.clone() if isinstance(meta, Reference) else copy.deepcopy(meta)
        for _ in range(2):
            loss = mse(learner(X[:6]), Y[:6])
            learner.adapt(loss, first_order=first_order)
        return list(weights(learner).values())

    hold(program, variant)


@plain_variants
@pytest.mark.parametrize("cut", [False, True])
def test_a_copy_of_a_learner_goes_its_own_way(cut, variant):
    def program(make):
        learner = make(mlp()).clone()
        learner.adapt(mse(learner(X[:6]), Y[:6]))
        if cut:
            detach(learner)
        twin = copy.deepcopy(learner)
        twin.adapt(mse(twin(X[2:8]), Y[2:8]))
        twin.adapt(mse(twin(X[:6]), Y[:6]))
        learner.adapt(mse(learner(X[4:]), Y[4:]))
        both = [*weights(twin).values(), *weights(learner).values()]
        return [*both, twin(X), learner(X)]

    hold(program, variant)


@pytest.mark.parametrize("estimator", [Exact(), Guided(h=1e-4)])
def test_a_copy_of_a_learner_with_a_hyperparameter_adapts(estimator):
    ends = []
    for algorithm in (EvoGradMetaOptimizer, Reference):
        torch.manual_seed(0)
        model, lam = mlp(), torch.full((3,), 0.3, requires_grad=True)
        meta = algorithm(model, 0.1, hyperparameters=lam, estimator=estimator)
        learner = meta.clone()
        detach(learner)
        twin = copy.deepcopy(learner)
        for net in (twin, learner):
            net.adapt(mse(net(X[:6]), Y[:6]) + net(X[:6]).square().mean(0) @ lam)
        loss = mse(twin(X[6:]), Y[6:]) + mse(learner(X[6:]), Y[6:])
        ends.append(derivatives(loss, [lam]))
    assert gap(*ends) < (1e-9 if isinstance(estimator, Exact) else 1e-4)


def test_buffers_of_a_copy_are_its_own():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    learner = EvoGradMetaOptimizer(model, 0.1).clone()
    twin = copy.deepcopy(learner)
    twin(X)
    means = [
        inside(net, lambda module: module[1].running_mean) for net in (learner, twin)
    ]
    assert torch.equal(means[0], torch.zeros(5))
    assert not torch.equal(means[1], torch.zeros(5))
