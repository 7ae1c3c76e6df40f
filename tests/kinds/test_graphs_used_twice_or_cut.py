"""Graphs that are used twice, or cut."""

import pytest
import torch
from reference import detach, gap, weights
from siblings import (
    GRAPH,
    X,
    Y,
    hold,
    mlp,
    mse,
    named_variants,
    plain_variants,
)
from torch import nn

from l2l_evograd import EvoGradMetaOptimizer

pytestmark = pytest.mark.usefixtures("float64")
pieces = [slice(i, i + 4) for i in (0, 2, 4)]


def all_support_losses(learner):
    losses = [mse(learner(X[piece]), Y[piece]) for piece in pieces[:1]]
    for piece in pieces[1:]:
        learner.adapt(losses[-1])
        losses.append(mse(learner(X[piece]), Y[piece]))
    return sum(losses)


def query_loss_after_each_step(learner):
    outer = 0
    for piece in pieces:
        learner.adapt(mse(learner(X[piece]), Y[piece]))
        outer = outer + mse(learner(X[8:]), Y[8:])
    return outer


def outputs_of_an_earlier_step(learner):
    before = learner(X[8:])
    learner.adapt(mse(learner(X[:6]), Y[:6]))
    between = learner(X[8:])
    learner.adapt(mse(learner(X[:6]), Y[:6]))
    return mse(learner(X[8:]), before) + mse(between, Y[8:])


def earlier_outputs_in_a_later_step(learner):
    before = learner(X[:6])
    learner.adapt(mse(before, Y[:6]))
    learner.adapt(mse(learner(X[:6]), Y[:6]) + mse(learner(X[:6]), before))
    return mse(learner(X[8:]), Y[8:])


def length_of_the_way(learner):
    start = list(weights(learner).values())
    for _ in range(2):
        learner.adapt(mse(learner(X[:6]), Y[:6]))
    ends = weights(learner).values()
    way = sum((a - b).square().sum() for a, b in zip(start, ends, strict=True))
    return mse(learner(X[8:]), Y[8:]) + way


def ratio_of_the_losses(learner):
    support = mse(learner(X[:6]), Y[:6])
    learner.adapt(support)
    return mse(learner(X[:6]), Y[:6]) / support


def gradient_of_the_support_loss(learner):
    support = mse(learner(X[:6]), Y[:6])
    grads = torch.autograd.grad(
        support, list(weights(learner).values()), create_graph=True
    )
    learner.adapt(support)
    return mse(learner(X[8:]), Y[8:]) + sum(g.square().sum() for g in grads)


OUTER = [
    all_support_losses,
    query_loss_after_each_step,
    outputs_of_an_earlier_step,
    earlier_outputs_in_a_later_step,
    length_of_the_way,
    ratio_of_the_losses,
    gradient_of_the_support_loss,
]


@plain_variants
@pytest.mark.parametrize("outer", OUTER)
def test_what_belongs_to_an_earlier_step_is_used_again(outer, variant):
    def program(make):
        model = mlp()
        return outer(make(model).clone()), list(model.parameters())

    hold(program, variant)


@named_variants
@pytest.mark.parametrize("outer", [all_support_losses, query_loss_after_each_step])
def test_with_a_hyperparameter(outer, variant):
    if variant.settings.get("first_order") is None:
        pytest.skip("first_order drops part of what an earlier step's tensors give")

    class Scaled(nn.Module):
        def __init__(self, lam):
            super().__init__()
            self.net, self.lam = mlp(), lam

        def forward(self, x):
            return self.net(x) * self.lam.exp()

    def program(make):
        model = Scaled(nn.Parameter(torch.tensor(0.3)))
        learner = make(model, hyperparameters=[model.lam]).clone()
        return outer(learner), [model.lam]

    hold(program, variant)


def squared_norm(loss, tensors):
    grads = torch.autograd.grad(loss, tensors, create_graph=True)
    return sum(g.square().sum() for g in grads)


def along_a_direction(loss, tensors):
    grads = torch.autograd.grad(loss, tensors, create_graph=True)
    return sum((g * torch.ones_like(g)).sum() for g in grads)


def third_order(loss, tensors):
    return squared_norm(squared_norm(loss, tensors), tensors)


def after_a_meta_step(loss, tensors):
    grads = torch.autograd.grad(loss, tensors, create_graph=True)
    moved = [p - 0.1 * g for p, g in zip(tensors, grads, strict=True)]
    return sum(p.sin().sum() for p in moved)


@plain_variants
@pytest.mark.parametrize(
    "function", [squared_norm, along_a_direction, third_order, after_a_meta_step]
)
def test_derivatives_of_the_meta_gradient(function, variant):
    def program(make):
        model = mlp()
        learner = make(model).clone()
        for _ in range(2):
            learner.adapt(mse(learner(X[:6]), Y[:6]))
        tensors = list(model.parameters())
        return function(mse(learner(X[6:]), Y[6:]), tensors), tensors

    hold(program, variant)


@plain_variants
@pytest.mark.parametrize("cuts", [(1,), (0,), (1, 2)], ids=str)
def test_weights_cut_off_between_steps(cuts, variant):
    def program(make):
        model = mlp()
        learner, leaves = make(model).clone(), []
        for step, piece in enumerate(pieces):
            if step in cuts:
                leaves = detach(learner)
            learner.adapt(mse(learner(X[piece]), Y[piece]))
        return mse(learner(X[8:]), Y[8:]), [*leaves, *model.parameters()]

    hold(program, variant)


@named_variants
def test_weights_cut_off_with_a_hyperparameter(variant):
    def program(make):
        model, lam = mlp(), torch.full((3,), 0.3, requires_grad=True)
        learner = make(model, hyperparameters=lam).clone()
        for step, piece in enumerate(pieces):
            if step == 1:
                detach(learner)
            out = learner(X[piece])
            learner.adapt(mse(out, Y[piece]) + out.square().mean(0) @ lam)
        return mse(learner(X[8:]), Y[8:]), [lam]

    hold(program, variant)


@plain_variants
@pytest.mark.parametrize("first_order", [False, True])
def test_two_learners_in_one_loss(first_order, variant):
    def program(make):
        model = mlp()
        meta = make(model, first_order=first_order)
        one, other = meta.clone(), meta.clone()
        one.adapt(mse(one(X[:6]), Y[:6]))
        other.adapt(mse(other(X[:6]), Y[:6]) + mse(other(X[:6]), one(X[:6])))
        return mse(one(X[6:]), Y[6:]) + mse(other(X[6:]), Y[6:]), [*model.parameters()]

    hold(program, variant)


@pytest.mark.parametrize("memory", ["graph", "recompute"])
def test_backward_twice_with_the_graph_kept(memory):
    torch.manual_seed(0)
    model = mlp()
    learner = EvoGradMetaOptimizer(model, 0.1, memory=memory).clone()
    learner.adapt(mse(learner(X[:6]), Y[:6]))
    loss = mse(learner(X[6:]), Y[6:])
    loss.backward(retain_graph=True)
    once = [p.grad.clone() for p in model.parameters()]
    loss.backward()
    twice = [p.grad for p in model.parameters()]
    assert gap(twice, [2 * g for g in once]) < GRAPH.tolerance
