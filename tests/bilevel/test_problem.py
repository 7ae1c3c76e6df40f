"""The two ways to pose a problem, and what the losses are given."""

import pytest
import torch
from marked import Square, data
from torch import nn
from torch.nn import functional as F

from l2l_evograd import hypergradient
from l2l_evograd.bilevel.problem import DictProblem, ModuleProblem, structured_as

pytestmark = pytest.mark.usefixtures("float64")


def test_modes_set_on_a_view_do_not_reach_the_model():
    model, x, y = data()
    lam = torch.ones((), requires_grad=True)
    seen = []

    def inner_loss(view):
        view.eval()
        seen.append(view.training)
        return lam * F.cross_entropy(view(x), y)

    def outer_loss(view):
        view.eval()
        view.body[2].p = 0.9
        view.note = "kept by the view"
        return F.cross_entropy(view(x), y)

    hypergradient(inner_loss, outer_loss, model, lam, lr=0.1, estimator="exact")
    assert seen == [False] and model.training and model.body[1].training
    assert model.body[2].p == 0.3 and not hasattr(model, "note")


def test_modes_set_on_a_view_hold_for_a_hidden_computation_too():
    def gradient(square):
        model, x, y = data()
        lam = torch.ones((), requires_grad=True)

        def inner_loss(view):
            view.eval()
            return lam * square(view(x)).mean()

        def outer_loss(view):
            return F.cross_entropy(view.eval()(x), y)

        found = hypergradient(
            inner_loss, outer_loss, model, lam, lr=0.1, estimator="exact"
        )
        return found.gradients

    assert abs(gradient(Square.apply) - gradient(torch.square)) < 1e-12


def test_inner_losses_write_to_one_set_of_buffers_and_outer_losses_to_none():
    norm = nn.BatchNorm1d(3)
    x = torch.randn(6, 3)
    problem = ModuleProblem(nn.Sequential(norm, nn.Linear(3, 1)), norm)
    seen = []

    def loss(view):
        view(x)
        seen.append(int(view[0].num_batches_tracked))
        return view(x).mean()

    problem.inner(loss, record=False, twice=False)
    problem.inner(loss, record=True, twice=True)
    problem.outer(loss)
    problem.outer(loss)
    assert seen == [1, 3, 5, 5]
    assert int(norm.num_batches_tracked) == 0


def test_inner_losses_may_write_to_the_buffers_of_the_module_itself():
    norm = nn.BatchNorm1d(3)
    x = torch.randn(6, 3)
    model = nn.Sequential(norm, nn.Linear(3, 1))
    problem = ModuleProblem(model, norm, own_buffers=False)
    before = problem.buffers()
    problem.inner(lambda view: view(x).mean(), record=False, twice=False)
    problem.outer(lambda view: view(x).mean())
    assert int(norm.num_batches_tracked) == 1
    problem.inner_from(lambda view: view(x).mean(), before)
    assert int(norm.num_batches_tracked) == 1
    assert [int(b) for b in before.values() if not b.dim()] == [1]


def test_weights_of_a_problem_are_not_those_of_the_module():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].bias.requires_grad_(False)
    problem = ModuleProblem(model, "0.weight")
    assert problem.weight_names == ["0.bias", "1.weight"]
    assert problem.names == ["0.weight"]
    assert problem.hyperparameters[0] is model[0].weight
    problem.inner(lambda view: view(torch.ones(2)).sum(), False, False).backward()
    assert [p.grad is None for p in model.parameters()] == [False, True, True, True]
    assert all(value.grad is not None for value in problem.values)


def test_hyperparameters_come_back_as_they_were_given():
    a, b = torch.ones(2), torch.zeros(3)
    problem = DictProblem({"w": torch.ones(1)}, {"a": a, "b": b})
    assert list(problem.structured([a, b])) == ["a", "b"]
    assert structured_as(a, [b]) is b
    assert structured_as((a, b), [a, b]) == [a, b]
    assert problem.hyperparameters[0] is not a and not a.requires_grad
    seen = problem.inner(lambda params, lam: lam["a"], record=True, twice=True)
    assert seen is problem.hyperparameters[0]
