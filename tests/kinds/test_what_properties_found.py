"""Wrong numbers that the random programs of ``tests/properties`` came upon."""

import functools

import pytest
import torch
from reference import Reference, update_by_hand
from siblings import LR, X, Y, hold, mlp, mse, named_variants, plain_variants
from torch import nn
from torch.utils.checkpoint import checkpoint

from l2l_evograd import EvoGradMetaOptimizer, hypergradient

pytestmark = pytest.mark.usefixtures("float64")


def weighted(lam, out):
    return (lam * (out - Y[:6]).square().mean(1)).mean()


@named_variants
@pytest.mark.parametrize("first", ["train", "eval"])
def test_statistics_that_a_later_step_writes_to(first, variant):
    """What an evaluating step read is written to by a training step after it."""

    def program(make):
        model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
        lam = torch.full((6,), 0.3, requires_grad=True)
        learner = make(model, hyperparameters=lam).clone()
        for mode in (first, "train", "eval", "train"):
            learner.train(mode == "train")
            learner.adapt(weighted(lam, learner(X[:6])))
        return mse(learner(X[6:]), Y[6:]), [lam]

    hold(program, variant)


@named_variants
def test_a_tensor_on_the_module_that_is_written_to_later(variant):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.seen = mlp(), torch.ones(3)

        def forward(self, x):
            out = self.net(x) * self.seen
            self.seen = self.seen.clone()  # the graph's own stays as it was
            self.seen += 0.5
            return out

    def program(make):
        model, lam = Net(), torch.full((6,), 0.3, requires_grad=True)
        learner = make(model, hyperparameters=lam).clone()
        for _ in range(3):
            learner.adapt(weighted(lam, learner(X[:6])))
        return mse(learner(X[6:]), Y[6:]), [lam]

    hold(program, variant)


class Checkpointed(nn.Module):
    """What it computes again in a backward pass must be at the weights of the call."""

    def __init__(self, plain):
        super().__init__()
        self.first, self.last, self.plain = nn.Linear(4, 5), nn.Linear(5, 3), plain

    def forward(self, x):
        def body(x):
            return torch.tanh(self.first(x))

        h = body(x) if self.plain else checkpoint(body, x, use_reentrant=False)
        return self.last(h)


@plain_variants
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("way", ["adapt", "by hand"])
def test_activation_checkpoints(way, first_order, variant):
    def program(make):
        model = Checkpointed(plain=isinstance(make(mlp()), Reference))
        learner = make(model, first_order=first_order).clone()
        for _ in range(2):
            loss = mse(learner(X[:6]), Y[:6])
            if way == "adapt":
                learner.adapt(loss)
            else:
                update_by_hand(learner, loss, LR)
        return mse(learner(X[6:]), Y[6:]), list(model.parameters())

    may_refuse = type(variant)(variant.name, variant.settings, True)
    hold(program, may_refuse)


class Hooked(nn.Module):
    """Its hook does nothing to the small gradients of a step, only to the outer's."""

    def __init__(self, bound):
        super().__init__()
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)
        self.bound = bound

    def forward(self, x):
        h = torch.tanh(self.first(x))
        if h.requires_grad:
            h.register_hook(lambda grad: grad.clamp(-self.bound, self.bound))
        return self.last(h)


BOUNDS = pytest.mark.parametrize("bound", [0.02, 0.2, 2.0])


@plain_variants
@BOUNDS
def test_a_hook_that_acts_in_the_outer_pass_alone(bound, variant):
    def program(make):
        model = Hooked(bound)
        learner = make(model).clone()
        for _ in range(2):
            learner.adapt(0.1 * mse(learner(X[:6]), Y[:6]))
        return 50 * mse(learner(X[6:]), Y[6:]), list(model.parameters())

    hold(program, variant)


@named_variants
@BOUNDS
def test_such_a_hook_with_a_hyperparameter(bound, variant):
    def program(make):
        model, lam = Hooked(bound), torch.full((6,), 0.3, requires_grad=True)
        learner = make(model, hyperparameters=lam).clone()
        for _ in range(2):
            learner.adapt(weighted(lam, learner(X[:6])))
        return 50 * mse(learner(X[6:]), Y[6:]), [lam, *model.parameters()]

    hold(program, variant)


def into_zeros_like(h):
    out = torch.zeros_like(h)
    out[::2], out[1::2] = h[::2] * 2, h[1::2].sin()
    return out


def into_empty_like(h):
    out = torch.empty_like(h)
    out[:, 0], out[:, 1:] = h[:, 0] * 2, h[:, 1:].sin()
    return out


def into_new_zeros(h):
    out = h.new_zeros(len(h), 10)
    out[:, :5] = h
    out.view(-1, 2)[:, 1] += 1
    return out[:, ::2]


@named_variants
@pytest.mark.parametrize("write", [into_zeros_like, into_empty_like, into_new_zeros])
def test_writes_into_tensors_made_in_the_likeness_of_others(write, variant):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.last(write(torch.tanh(self.first(x))))

    def program(make):
        model, lam = Net(), torch.full((6,), 0.3, requires_grad=True)
        learner = make(model, hyperparameters=lam).clone()
        for _ in range(2):
            learner.adapt(weighted(lam, learner(X[:6])))
        return mse(learner(X[6:]), Y[6:]), [lam]

    hold(program, variant)


@pytest.mark.parametrize("way", ["detach", "no_grad"])
def test_a_write_behind_autograds_back_is_refused(way):
    """Autograd takes it for a constant; a difference at other weights would not."""

    def loss(learner):
        h = torch.tanh(learner.module[0](X[:6]))
        if way == "detach":
            h.detach().mul_(2)
        else:
            with torch.no_grad():
                h.mul_(2)
        return weighted(lam, learner.module[2](h))

    lam = torch.full((6,), 0.3, requires_grad=True)
    learner = EvoGradMetaOptimizer(mlp(), LR, hyperparameters=lam).clone()
    with pytest.raises(TypeError, match="without autograd recording.*detach"):
        learner.adapt(loss)


def test_a_checkpoint_around_a_call_of_the_learner_is_refused():
    learner = EvoGradMetaOptimizer(mlp(), LR).clone()

    def support(x):
        return mse(learner(x), Y[:6])

    x = X[:6].clone().requires_grad_()
    learner.adapt(checkpoint(support, x, use_reentrant=False))
    with pytest.raises(RuntimeError, match="checkpoints inside the model"):
        mse(learner(X[6:]), Y[6:]).backward()


def test_sparse_gradients_are_refused_where_a_step_is_computed_again():
    def adapted(**settings):
        model = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Linear(3, 3))
        learner = EvoGradMetaOptimizer(model, LR, **settings).clone()
        learner.adapt(mse(learner(torch.arange(5)), Y[:5]))

    adapted(first_order=True)
    with pytest.raises(ValueError, match="sparse=False"):
        adapted(memory="recompute")


@pytest.mark.parametrize("wrap", [functools.partial, lambda loss: loss])
def test_a_loss_is_checked_whatever_was_checked_before(wrap):
    lam = torch.ones(3, requires_grad=True)

    def derivative(net, change):
        def inner(change, view):
            h = torch.tanh(view[0](X[:6]))
            h.register_hook(lambda g: g * change)
            return view[2](h).square().mean(0) @ lam

        loss = wrap(functools.partial(inner, change))
        hypergradient(loss, lambda v: mse(v(X[6:]), Y[6:]), net, lam, lr=LR)

    with pytest.raises((RuntimeError, TypeError)):
        derivative(mlp(), 3.0)
