"""Hooks: on the learner's weights, on tensors inside, on modules, on the loss."""

import pytest
import torch
from reference import weights
from siblings import (
    X,
    Y,
    adapted_twice,
    hold,
    mlp,
    mse,
    named_variants,
    plain_variants,
    weighted_twice,
)
from torch import nn

pytestmark = pytest.mark.usefixtures("float64")


def clipped(grad):
    return grad.clamp(-0.05, 0.05)


def scaled_by_its_norm(grad):
    return grad / (1 + grad.norm())


def masked(grad):
    return grad * (grad > 0)


def centred(grad):
    return grad - grad.mean()


def only_looked_at(grad):
    assert torch.isfinite(grad).all()


HOOKS = [clipped, scaled_by_its_norm, masked, centred, only_looked_at]
hooks = pytest.mark.parametrize("hook", HOOKS)


def hooked_loop(learner, inner, hook, names=None):
    for _ in range(2):
        handles = [
            p.register_hook(hook)
            for name, p in weights(learner).items()
            if names is None or name in names
        ]
        learner.adapt(inner(learner))
        if hook is masked:  # a hook that is taken away again acts in the step alone
            for handle in handles:
                handle.remove()


@plain_variants
@hooks
@pytest.mark.parametrize("names", [None, ("2.weight",)], ids=["all", "one"])
def test_hooks_on_the_weights_of_a_learner(hook, names, variant):
    def program(make):
        model = mlp()
        learner = make(model).clone()
        hooked_loop(learner, lambda net: mse(net(X[:6]), Y[:6]), hook, names)
        return mse(learner(X[6:]), Y[6:]), list(model.parameters())

    hold(program, variant)


@named_variants
@hooks
def test_hooks_on_the_weights_with_a_hyperparameter(hook, variant):
    def program(make):
        model, lam = mlp(), torch.full((6,), 0.3, requires_grad=True)
        learner = make(model, hyperparameters=lam).clone()

        def inner(net):
            return (lam * (net(X[:6]) - Y[:6]).square().mean(1)).mean()

        hooked_loop(learner, inner, hook)
        return mse(learner(X[6:]), Y[6:]), [lam]

    hold(program, variant)


class Inside(nn.Module):
    """Registers ``hook`` on what it computes in between."""

    def __init__(self, hook):
        super().__init__()
        self.first, self.last, self.hook = nn.Linear(4, 5), nn.Linear(5, 3), hook

    def forward(self, x):
        h = torch.tanh(self.first(x))
        if h.requires_grad:
            h.register_hook(self.hook)
        return self.last(h)


def backward_of_a_module(hook):
    def build():
        model = mlp()
        model[1].register_full_backward_hook(lambda m, into, out: (hook(into[0]),))
        return model

    return build


def backward_before_a_module(hook):
    def build():
        model = mlp()
        model[1].register_full_backward_pre_hook(lambda m, out: (hook(out[0]),))
        return model

    return build


def forward_of_a_module(change):
    def build():
        model = mlp()
        model[0].register_forward_hook(lambda m, args, out: change(m, out))
        return model

    return build


def forward_before_a_module(change):
    def build():
        model = mlp()
        model[2].register_forward_pre_hook(lambda m, args: (change(m, args[0]),))
        return model

    return build


def kept_by_a_hook():
    """Its hook keeps the features; the penalty on them is added by another hook."""
    model = mlp()
    model[1].register_forward_hook(lambda m, args, out: m.__setattr__("kept", out))
    model.register_forward_hook(lambda m, args, out: out * m[1].kept.square().mean())
    return model


ON_GRADIENTS = {
    "tensor, clipped": lambda: Inside(clipped),
    "tensor, reversed": lambda: Inside(torch.neg),
    "tensor, looked at": lambda: Inside(only_looked_at),
    "backward": backward_of_a_module(clipped),
    "backward before": backward_before_a_module(scaled_by_its_norm),
}
ON_VALUES = {
    "forward": forward_of_a_module(lambda m, out: out * m.weight.sum()),
    "forward, random": forward_of_a_module(lambda m, out: nn.functional.dropout(out)),
    "forward before": forward_before_a_module(lambda m, x: x + m.weight[0].sin()),
    "kept": kept_by_a_hook,
}
builds = pytest.mark.parametrize("kind", [*ON_GRADIENTS, *ON_VALUES])


@plain_variants
@builds
def test_hooks_in_the_module(kind, variant):
    def program(make):
        return adapted_twice(make, (ON_GRADIENTS | ON_VALUES)[kind]())

    hold(program, variant)


@named_variants
@builds
def test_hooks_in_the_module_with_a_hyperparameter(kind, variant):
    def program(make):
        return weighted_twice(make, (ON_GRADIENTS | ON_VALUES)[kind]())

    equal = hold(program, variant)
    # Hooks on values are part of what happened; nothing stands against repeating it.
    assert equal or kind in ON_GRADIENTS


@plain_variants
def test_a_hook_on_the_loss(variant):
    def program(make):
        model = mlp()
        learner = make(model).clone()
        for _ in range(2):
            loss = mse(learner(X[:6]), Y[:6])
            loss.register_hook(lambda grad: 0.3 * grad)
            learner.adapt(loss)
        return mse(learner(X[6:]), Y[6:]), list(model.parameters())

    hold(program, variant)


@named_variants
def test_a_hook_on_the_loss_with_a_hyperparameter(variant):
    def program(make):
        model, lam = mlp(), torch.tensor(0.3, requires_grad=True)
        learner = make(model, hyperparameters=lam).clone()
        for _ in range(2):
            loss = lam.exp() * mse(learner(X[:6]), Y[:6])
            loss.register_hook(lambda grad: 0.3 * grad)
            learner.adapt(loss)
        return mse(learner(X[6:]), Y[6:]), [lam]

    hold(program, variant)


@plain_variants
def test_hooks_on_what_autograd_saves(variant):
    def program(make):
        model = mlp()
        learner = make(model).clone()
        for _ in range(2):
            with torch.autograd.graph.saved_tensors_hooks(
                lambda tensor: tensor.clone(), lambda tensor: tensor
            ):
                learner.adapt(mse(learner(X[:6]), Y[:6]))
        return mse(learner(X[6:]), Y[6:]), list(model.parameters())

    hold(program, variant)


@plain_variants
def test_hooks_on_the_original_weights_act_on_the_meta_gradient(variant):
    def program(make):
        model = mlp()
        for p in model.parameters():
            p.register_hook(clipped)
        return adapted_twice(make, model)

    hold(program, variant)
