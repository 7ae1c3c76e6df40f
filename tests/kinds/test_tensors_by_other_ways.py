"""Tensors that reach ``forward`` by another way than its arguments."""

import contextvars
from dataclasses import dataclass

import pytest
import torch
from reference import Reference, derivatives, gap, inside
from siblings import LR, X, Y, hold, mse, named_variants, plain_variants
from torch import nn
from torch.nn import functional as F

from l2l_evograd import Exact, Guided, hypergradient

pytestmark = pytest.mark.usefixtures("float64")
CURRENT = contextvars.ContextVar("CURRENT")


class Conditioned(nn.Module):
    """Multiplies its features by what ``gamma`` finds."""

    def __init__(self, gamma):
        super().__init__()
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)
        self.register_buffer("shift", torch.zeros(5))
        self.gamma = gamma
        self.conditions, self.stack = {"scale": None}, [None]

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)) * self.gamma(self))


@dataclass
class Condition:
    scale: torch.Tensor


def set_on_the_module(module, tensor):
    module.scale = tensor


def set_on_a_part(module, tensor):
    module.last.scale = tensor


def set_in_a_dictionary(module, tensor):
    module.conditions["scale"] = tensor


def set_in_a_list(module, tensor):
    module.stack[0] = tensor


def set_as_a_buffer(module, tensor):
    module.shift = tensor


def set_in_a_record(module, tensor):
    module.condition = Condition(tensor)


def set_in_the_context(module, tensor):
    CURRENT.set(tensor)


def set_by_a_method(module, tensor):
    module.gamma = lambda module: tensor


WAYS = {
    set_on_the_module: lambda module: module.scale,
    set_on_a_part: lambda module: module.last.scale,
    set_in_a_dictionary: lambda module: module.conditions["scale"],
    set_in_a_list: lambda module: module.stack[0],
    set_as_a_buffer: lambda module: 1 + module.shift,
    set_in_a_record: lambda module: module.condition.scale,
    set_in_the_context: lambda module: CURRENT.get(),
    set_by_a_method: None,
}
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@plain_variants
@ways
def test_a_condition_from_another_network(way, variant):
    def program(make):
        model, film = Conditioned(WAYS[way]), nn.Linear(4, 5)
        learner = make(model).clone()
        for step in range(2):
            tensor = film(X[step : step + 6].mean(0))
            inside(learner, lambda module, tensor=tensor: way(module, tensor))
            learner.adapt(mse(learner(X[:6]), Y[:6]))
        tensors = [*film.parameters(), *model.parameters()]
        return mse(learner(X[6:]), Y[6:]), tensors

    hold(program, variant)


@named_variants
@ways
def test_a_condition_that_is_the_hyperparameter(way, variant):
    def program(make):
        model, lam = Conditioned(WAYS[way]), torch.linspace(0, 1, 5).requires_grad_()
        learner = make(model, hyperparameters=lam).clone()
        inside(learner, lambda module: way(module, lam.exp()))
        for _ in range(2):
            learner.adapt(mse(learner(X[:6]), Y[:6]))
        return mse(learner(X[6:]), Y[6:]), [lam]

    hold(program, variant)


class Hyper(nn.Module):
    """Its weights come from outside: only the last layer is its own."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(5, 3)

    def forward(self, x):
        return self.last(torch.tanh(F.linear(x, self.made)))


@plain_variants
def test_weights_made_by_another_network(variant):
    def program(make):
        model, maker = Hyper(), nn.Linear(4, 20)
        model.made = None
        learner = make(model).clone()
        for _ in range(2):
            made = maker(X[:6].mean(0)).view(5, 4)
            inside(learner, lambda module, made=made: setattr(module, "made", made))
            learner.adapt(mse(learner(X[:6]), Y[:6]))
        return mse(learner(X[6:]), Y[6:]), [*maker.parameters(), *model.parameters()]

    hold(program, variant)


class Remembering(nn.Module):
    """Keeps state on itself from one call of a loss to the next, with its graph."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.state = kind, None
        if kind == "LSTM":
            self.cell = nn.LSTM(4, 5)
        else:
            self.cell = nn.Linear(4, 5)
        self.last = nn.Linear(5, 3)

    def forward(self, x):
        if self.kind == "LSTM":
            out, self.state = self.cell(x[None], self.state)
            return self.last(out[0])
        h = torch.tanh(self.cell(x))
        if self.kind == "cache":
            self.state = [*(self.state or ()), h]
            keys = torch.cat(self.state)
            h = torch.softmax(h @ keys.t(), 1) @ keys
        elif self.kind == "difference":
            h, self.state = h - (0 if self.state is None else self.state), h
        elif self.kind == "mean":
            count, total = self.state or (0, 0)
            self.state = count + 1, total + h.mean(0)
            h = h - self.state[1] / self.state[0]
        return self.last(h)


kinds = pytest.mark.parametrize("kind", ["LSTM", "cache", "difference", "mean"])


def loss_of_a_sequence(learner, start):
    inside(learner, lambda module: setattr(module, "state", None))
    ends = [slice(i, i + 3) for i in range(start, start + 9, 3)]
    return sum(mse(learner(X[end]), Y[end]) for end in ends)


@plain_variants
@kinds
def test_state_kept_on_the_module(kind, variant):
    def program(make):
        model = Remembering(kind)
        learner = make(model).clone()
        for _ in range(2):
            learner.adapt(loss_of_a_sequence(learner, 0))
        return loss_of_a_sequence(learner, 3), list(model.parameters())

    hold(program, variant)


@named_variants
@kinds
def test_state_kept_on_the_module_with_a_hyperparameter(kind, variant):
    def program(make):
        model, lam = Remembering(kind), torch.tensor(0.3, requires_grad=True)
        learner = make(model, hyperparameters=lam).clone()
        for _ in range(2):
            learner.adapt(lam.exp() * loss_of_a_sequence(learner, 0))
        return loss_of_a_sequence(learner, 3), [lam]

    hold(program, variant)


def penalty(lam):
    return lambda view: view(X[:6]).mean(0) @ lam[:3]


def decay(lam):
    return lambda view: (
        lam.exp().mean() * sum(p.square().sum() for p in view.parameters())
    )


def own_penalty(lam):
    return lambda view: lam.square().sum() * view(X[:2]).square().mean()


def temperature(lam):
    return lambda view: (view(X[:6]) / lam.exp().sum()).sin().mean()


@pytest.mark.parametrize(
    "estimator", [Exact(), Guided(h=1e-4), Guided(1e-7, "forward")]
)
@pytest.mark.parametrize("second", [penalty, decay, own_penalty, temperature])
@pytest.mark.parametrize("where", ["closure", "attribute", "computed"])
def test_a_hyperparameter_in_forward_and_in_the_loss(where, second, estimator):
    torch.manual_seed(0)
    lam = torch.linspace(0.2, 0.6, 5).requires_grad_()
    model = Conditioned(
        {
            "closure": lambda module: lam,
            "attribute": lambda module: module.scale,
            "computed": lambda module: torch.sigmoid(module.scale) * lam,
        }[where]
    )
    model.scale = lam

    def inner(view):
        return mse(view(X[:6]), Y[:6]) + second(lam)(view)

    def outer(view):
        return mse(view(X[6:]), Y[6:])

    learner = Reference(model, LR, hyperparameters=lam).clone()
    learner.adapt(inner(learner))
    truth = derivatives(outer(learner), [lam])
    found = hypergradient(inner, outer, model, lam, lr=LR, estimator=estimator)
    assert gap([found.gradients], truth) < (
        1e-9 if isinstance(estimator, Exact) else 1e-4
    )
