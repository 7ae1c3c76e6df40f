"""Callables that would see something else if they were called again later."""
# ruff: noqa: B023  That they are bound to variables of a loop is what is tested.

import pytest
import torch
from reference import Reference, inside
from siblings import (
    LR,
    Variant,
    X,
    Y,
    hold,
    mlp,
    mse,
    named_variants,
    plain_variants,
)
from torch import nn

pytestmark = pytest.mark.usefixtures("float64")
BATCHES = [(X[i : i + 4], Y[i : i + 4]) for i in (0, 2, 4)]


class WithTerm(nn.Module):
    """Keeps a term of its loss as an attribute, which each call writes anew."""

    def __init__(self):
        super().__init__()
        self.experts, self.gate = nn.Linear(4, 6), nn.Linear(4, 2)
        self.balance = None

    def forward(self, x):
        gates = torch.softmax(self.gate(x), 1)
        self.balance = gates.mean(0).square().sum()
        return (torch.tanh(self.experts(x)).view(-1, 2, 3) * gates[..., None]).sum(1)


def variable_of_a_loop(learner, steps):
    for x, y in BATCHES[:steps]:
        learner.adapt(lambda net: mse(net(x), y))


def attribute_of_a_trainer(learner, steps):
    class Trainer:
        batch = None

        def loss(self, net):
            x, y = self.batch
            return mse(net(x), y)

    trainer = Trainer()
    for trainer.batch in BATCHES[:steps]:
        learner.adapt(trainer.loss)


def next_of_an_iterator(learner, steps):
    batches = iter(BATCHES)

    def loss(net):
        x, y = next(batches)
        return mse(net(x), y)

    for _ in range(steps):
        learner.adapt(loss)


def number_that_decays(learner, steps):
    x, y = BATCHES[0]
    temperature = 1.0
    for _ in range(steps):
        learner.adapt(lambda net: mse(net(x) / temperature, y))
        temperature *= 0.5


def counter_of_steps(learner, steps):
    calls = []

    def loss(net):
        calls.append(None)
        x, y = BATCHES[0]
        return mse(net(x), y) * len(calls)

    for _ in range(steps):
        learner.adapt(loss)


def list_that_grows(learner, steps):
    seen = []
    for batch in BATCHES[:steps]:
        seen.append(batch)
        learner.adapt(lambda net: sum(mse(net(x), y) for x, y in seen))


def targets_of_another_network(learner, steps):
    teacher = nn.Linear(4, 3)
    for x, _ in BATCHES[:steps]:
        learner.adapt(lambda net: mse(net(x), teacher(x).detach()))
        with torch.no_grad():
            teacher.weight.mul_(0.5)


LOOPS = [
    variable_of_a_loop,
    attribute_of_a_trainer,
    next_of_an_iterator,
    number_that_decays,
    counter_of_steps,
    list_that_grows,
    targets_of_another_network,
]


@plain_variants
@pytest.mark.parametrize("loop", LOOPS)
def test_a_callable_counts_as_it_was_when_it_was_given(loop, variant):
    def program(make):
        model = mlp()
        learner = make(model).clone()
        loop(learner, 3)
        return mse(learner(X[8:]), Y[8:]), list(model.parameters())

    hold(program, variant)


@plain_variants
def test_a_term_kept_on_the_module(variant):
    def program(make):
        model = WithTerm()
        learner = make(model).clone()
        for x, y in BATCHES:
            learner.adapt(
                lambda net: mse(net(x), y) + inside(net, lambda module: module.balance)
            )
        return mse(learner(X[8:]), Y[8:]), list(model.parameters())

    hold(program, variant)


@named_variants
@pytest.mark.parametrize("loop", LOOPS)
def test_with_a_hyperparameter(loop, variant):
    def program(make):
        model, lam = mlp(), torch.tensor(0.3, requires_grad=True)
        learner = make(model, hyperparameters=lam).clone()

        class Weighted:
            def adapt(self, loss):
                learner.adapt(
                    lambda net: (
                        lam.exp() * loss(net) + lam.sin() * net(X[:2]).square().mean()
                    )
                )

        loop(Weighted(), 3)
        return mse(learner(X[8:]), Y[8:]), [lam]

    hold(program, variant)


@plain_variants
def test_the_rate_is_the_one_of_the_step(variant):
    def program(make):
        model = mlp()
        learner = make(model).clone()
        for i, (x, y) in enumerate(BATCHES):
            learner.lr = LR / (i + 1)
            learner.adapt(lambda net: mse(net(x), y))
        learner.lr = 5.0
        return mse(learner(X[8:]), Y[8:]), list(model.parameters())

    hold(program, variant)


def in_memory_that_is_written_anew(make, again):
    """The batches, in one pair of tensors, or for the truth in a pair for each step."""
    model, lam = mlp(), torch.tensor(0.3, requires_grad=True)
    learner = make(model, hyperparameters=lam).clone()
    x, y = torch.empty(4, 4), torch.empty(4, 3)
    for batch in BATCHES:
        if not again:
            x, y = x.clone(), y.clone()
        x.copy_(batch[0]), y.copy_(batch[1])
        learner.adapt(lam.exp() * mse(learner(x), y))
    loss = mse(learner(X[8:]), Y[8:])
    return [lam.grad for _ in (loss.backward(),)]


@named_variants
def test_memory_that_is_written_anew_is_noticed(variant):
    separate = Variant(variant.name, variant.settings, False, variant.tolerance)
    hold(in_memory_that_is_written_anew, separate, False)

    def program(make):
        again = not isinstance(make(mlp()), Reference)
        return in_memory_that_is_written_anew(make, again)

    hold(program, Variant(variant.name, variant.settings, True, variant.tolerance))
