"""Random numbers that are not those of torch's global generator."""

import itertools
import random

import pytest
import torch
from siblings import (
    X,
    Y,
    adapted_twice,
    hold,
    mse,
    named_variants,
    plain_variants,
    weighted_twice,
)
from torch import nn

from l2l_evograd import Exact, Guided, hypergradient

numpy = pytest.importorskip("numpy")
pytestmark = pytest.mark.usefixtures("float64")


class Net(nn.Module):
    """Draws from ``source``, made anew for each module, in each forward pass."""

    def __init__(self, draw, source=None):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.draw, self.source = draw, source

    def forward(self, x):
        return self.last(self.draw(self, x))


def hidden(net, x):
    return torch.tanh(net.first(x))


def span_masked_by_numpy(net, x):
    start = numpy.random.randint(0, 4)
    h = hidden(net, x).clone()
    h[:, start : start + 2] = 0
    return h


def mixed_up_by_numpy(net, x):
    order = torch.from_numpy(numpy.random.permutation(len(x)))
    share = float(numpy.random.beta(2, 2))
    h = hidden(net, x)
    return share * h + (1 - share) * h[order]


def layer_dropped_by_python(net, x):
    h = hidden(net, x)
    return h if random.random() < 0.5 else h.sin() + h


def shifted_by_python(net, x):
    return hidden(net, x).roll(random.randrange(6), 1)


def noise_of_a_torch_generator(net, x):
    h = hidden(net, x)
    return h + 0.3 * h * torch.randn(h.shape, generator=net.source)


def choice_of_a_numpy_generator(net, x):
    return hidden(net, x) * torch.from_numpy(net.source.choice([0.5, 2.0], 6))


def noise_of_a_random_state(net, x):
    return hidden(net, x) * torch.from_numpy(net.source.uniform(0.5, 2, 6))


def numbers_of_an_iterator(net, x):
    return hidden(net, x) * next(net.source)


def global_generator_reseeded(net, x):
    torch.manual_seed(random.randrange(100))
    return nn.functional.dropout(hidden(net, x), 0.4)


SOURCES = {
    span_masked_by_numpy: lambda: None,
    mixed_up_by_numpy: lambda: None,
    layer_dropped_by_python: lambda: None,
    shifted_by_python: lambda: None,
    noise_of_a_torch_generator: lambda: torch.Generator().manual_seed(3),
    choice_of_a_numpy_generator: lambda: numpy.random.default_rng(3),
    noise_of_a_random_state: lambda: numpy.random.RandomState(3),
    numbers_of_an_iterator: lambda: iter(itertools.count(1)),
    global_generator_reseeded: lambda: None,
}
draws = pytest.mark.parametrize("draw", SOURCES, ids=lambda draw: draw.__name__)


@plain_variants
@draws
def test_the_draw_of_the_step_is_the_one_that_counts(draw, variant):
    def program(make):
        return adapted_twice(make, Net(draw, SOURCES[draw]()))

    hold(program, variant)


@named_variants
@draws
def test_with_sample_weights(draw, variant):
    def program(make):
        return weighted_twice(make, Net(draw, SOURCES[draw]()))

    hold(program, variant)


@named_variants
@draws
def test_in_the_function(draw, variant):
    def losses(model, lam):
        def inner(net):
            return (lam * (net(X[:6]) - Y[:6]).square().mean(1)).mean()

        return inner, lambda net: mse(net(X[6:]), Y[6:])

    def program(make):
        model = Net(draw, SOURCES[draw]())
        lam = torch.full((6,), 0.3, requires_grad=True)
        inner, outer = losses(model, lam)
        meta = make(model, hyperparameters=lam)
        if not isinstance(meta.clone(), nn.Module):  # the reference
            learner = meta.clone()
            learner.adapt(inner(learner))
            return list(torch.autograd.grad(outer(learner), [lam]))
        settings = variant.settings
        found = hypergradient(inner, outer, model, lam, lr=0.1, **settings)
        return [found.gradients]

    hold(program, variant)


@pytest.mark.parametrize("estimator", [Exact(), Guided()])
def test_global_random_states_are_as_after_one_call_of_each_loss(estimator):
    def states():
        numbers = numpy.random.get_state()[1].tolist()
        return torch.get_rng_state().tolist(), random.getstate(), numbers

    def draw(net, x):
        kept = [float(random.random() < 0.7) for _ in range(6)]
        h = nn.functional.dropout(hidden(net, x), 0.2)
        return h * torch.tensor(kept) * torch.from_numpy(numpy.random.rand(6))

    def outer(net):
        return mse(net(X[6:]), Y[6:])

    model, lam = Net(draw), torch.tensor(0.3, requires_grad=True)
    ends = []
    for run in (
        lambda: (model(X[:6]), outer(model)),
        lambda: hypergradient(
            lambda net: lam.exp() * mse(net(X[:6]), Y[:6]),
            outer,
            model,
            lam,
            lr=0.1,
            estimator=estimator,
        ),
    ):
        torch.manual_seed(1), random.seed(1), numpy.random.seed(1)
        run()
        ends.append(states())
    assert ends[0] == ends[1]
