"""Weights of a learner that change by other means than ``adapt``."""

import pytest
import torch
from reference import (
    Reference,
    change_in_place,
    inside,
    load,
    replace,
    update_by_hand,
    weights,
)
from siblings import LR, X, Y, hold, mlp, mse, named_variants, plain_variants
from torch import nn

pytestmark = pytest.mark.usefixtures("float64")
HEAD = ("2.weight", "2.bias")


def fresh_head():
    layer = nn.Linear(5, 3)
    return {"2.weight": layer.weight.detach(), "2.bias": layer.bias.detach()}


def head_loaded(learner):
    load(learner, fresh_head())


def head_reset(learner):
    if isinstance(learner, Reference):
        load(learner, fresh_head())  # draws as reset_parameters() does
    else:
        learner.module[2].reset_parameters()


def head_filled_by_init(learner):
    if isinstance(learner, Reference):
        change_in_place(learner, lambda p: torch.full_like(p, 0.25), HEAD)
    else:
        nn.init.constant_(learner.module[2].weight, 0.25)
        nn.init.constant_(learner.module[2].bias, 0.25)


def data_set(learner):
    if isinstance(learner, Reference):
        change_in_place(learner, lambda p: p.sin())
    else:
        for p in learner.parameters():
            p.data = p.data.sin()


def data_pruned(learner):
    if isinstance(learner, Reference):
        change_in_place(learner, lambda p: p * (p > 0))
    else:
        for p in learner.parameters():
            p.data.mul_(p.data > 0)


def norm_limited(learner):
    change_in_place(learner, lambda p: p * (0.5 / p.norm()).clamp(max=1))


def noise_added(learner):
    change_in_place(learner, lambda p: p + 0.1 * torch.randn_like(p))


def rounded(learner):
    change_in_place(learner, lambda p: (p * 8).round() / 8)


def written_from_a_vector(learner):
    if isinstance(learner, Reference):
        change_in_place(learner, lambda p: 0.5 * p)
    else:
        vector = nn.utils.parameters_to_vector(learner.parameters()).detach()
        nn.utils.vector_to_parameters(0.5 * vector, learner.parameters())


def update_on_another_batch(learner):
    update_by_hand(learner, mse(learner(X[3:9]), Y[3:9]), LR)


def update_of_the_head_alone(learner):
    head = [weights(learner)[name] for name in HEAD]
    loss = mse(learner(X[:6]), Y[:6])
    grads = torch.autograd.grad(loss, head, create_graph=True)
    for name, p, grad in zip(HEAD, head, grads, strict=True):
        replace(learner, name, p - LR * grad)


def update_with_weight_decay(learner):
    squares = sum(p.square().sum() for p in weights(learner).values())
    update_by_hand(learner, mse(learner(X[:6]), Y[:6]) + 0.1 * squares, LR)


def weights_scaled_on_the_graph(learner):
    for name, p in weights(learner).items():
        replace(learner, name, 0.9 * p)


CHANGES = [
    head_loaded,
    head_reset,
    head_filled_by_init,
    data_set,
    data_pruned,
    norm_limited,
    noise_added,
    rounded,
    written_from_a_vector,
    update_on_another_batch,
    update_of_the_head_alone,
    update_with_weight_decay,
    weights_scaled_on_the_graph,
]
changes = pytest.mark.parametrize("change", CHANGES)
places = pytest.mark.parametrize("place", ["before", "between", "after"])


def loop(learner, inner, change, place):
    for step in range(2):
        if (place, step) in (("before", 0), ("between", 1)):
            change(learner)
        learner.adapt(inner(learner))
    if place == "after":
        change(learner)


@plain_variants
@places
@changes
def test_the_next_step_starts_from_them(change, place, variant):
    def program(make):
        model = mlp()
        learner = make(model).clone()
        loop(learner, lambda net: mse(net(X[:6]), Y[:6]), change, place)
        return mse(learner(X[6:]), Y[6:]), list(model.parameters())

    hold(program, variant)


@named_variants
@places
@changes
def test_with_a_hyperparameter(change, place, variant):
    def program(make):
        model, lam = mlp(), torch.full((3,), 0.3, requires_grad=True)
        learner = make(model, hyperparameters=lam).clone()

        def inner(net):
            out = net(X[:6])
            return mse(out, Y[:6]) + out.square().mean(0) @ lam

        loop(learner, inner, change, place)
        return mse(learner(X[6:]), Y[6:]), [lam]

    hold(program, variant)


@plain_variants
@changes
def test_the_learner_shows_the_weights_it_uses(change, variant):
    def program(make):
        learner = make(mlp()).clone()
        learner.adapt(mse(learner(X[:6]), Y[:6]))
        change(learner)
        shown = list(weights(learner).values())
        hidden = torch.tanh(nn.functional.linear(X, shown[0], shown[1]))
        by_hand = nn.functional.linear(hidden, shown[2], shown[3])
        assert torch.allclose(by_hand, learner(X), rtol=1e-12, atol=1e-12)
        assert torch.equal(inside(learner, lambda module: module(X)), learner(X))
        return [*shown, by_hand]

    hold(program, variant)


@plain_variants
def test_a_loss_from_before_the_change_is_noticed_or_right(variant):
    def program(make):
        model = mlp()
        learner = make(model).clone()
        loss = mse(learner(X[:6]), Y[:6])
        if isinstance(learner, Reference):
            learner.adapt(loss)
            learner.change(lambda name, p: p)
        else:
            with torch.no_grad():
                for p in learner.parameters():
                    p.add_(0.1)
            learner.adapt(loss)
        return mse(learner(X[6:]), Y[6:]), list(model.parameters())

    # The weights that the step would move are no longer those of its gradient.
    with pytest.raises(RuntimeError, match="inplace|in place"):
        hold(program, type(variant)("", variant.settings, False))
