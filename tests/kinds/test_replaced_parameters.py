"""A parameter of a learner replaced by a computed tensor."""

import pytest
import torch
from reference import inside, replace, weights
from siblings import X, Y, hold, mlp, mse, named_variants, plain_variants
from torch import nn

from l2l_evograd import EvoGradMetaOptimizer

pytestmark = pytest.mark.usefixtures("float64")


def features(learner, x):
    return inside(learner, lambda module: torch.tanh(module[0](x)))


def prototypes(learner):
    return torch.stack([features(learner, X[i::3]).mean(0) for i in range(3)])


def linear_form_of_prototypes(learner, around):
    """Proto-MAML: the squared distance to a prototype as a linear layer."""
    made = prototypes(learner)
    replace(learner, "2.weight", 2 * made)
    replace(learner, "2.bias", -made.square().sum(1))


def prototypes_without_grad(learner, around):
    with torch.no_grad():
        made = prototypes(learner)
    replace(learner, "2.weight", made.requires_grad_())


def ridge_regression(learner, around):
    h = features(learner, X[:6])
    solved = torch.linalg.solve(h.t() @ h + torch.eye(5), h.t() @ Y[:6])
    replace(learner, "2.weight", solved.t())


def normalised(learner, around):
    weight = weights(learner)["2.weight"]
    replace(learner, "2.weight", weight / weight.norm(dim=1, keepdim=True))


def masked_from_outside(learner, around):
    weight = weights(learner)["0.weight"]
    replace(learner, "0.weight", weight * torch.sigmoid(around.weight[:5, :4]))


def made_by_a_hypernetwork(learner, around):
    made = around(X[:6].mean(0))
    replace(learner, "2.weight", made[:15].view(3, 5))
    replace(learner, "2.bias", made[15:18])


def in_low_rank(learner, around):
    weight = weights(learner)["0.weight"]
    change = around.weight[:5, :2] @ around.weight[5:7, :4]
    replace(learner, "0.weight", weight + change)


def by_a_frozen_tensor(learner, around):
    replace(learner, "2.bias", torch.ones(3))


REPLACEMENTS = [
    linear_form_of_prototypes,
    prototypes_without_grad,
    ridge_regression,
    normalised,
    masked_from_outside,
    made_by_a_hypernetwork,
    in_low_rank,
]
replacements = pytest.mark.parametrize("replacement", REPLACEMENTS)
places = pytest.mark.parametrize("when", [(0,), (1,), (0, 1)], ids=str)


@plain_variants
@places
@replacements
def test_what_replaces_a_parameter_is_adapted(replacement, when, variant):
    def program(make):
        model, around = mlp(), nn.Linear(4, 18)
        learner = make(model, allow_unused=True).clone()
        for step in range(2):
            if step in when:
                replacement(learner, around)
            learner.adapt(mse(learner(X[:6]), Y[:6]))
        tensors = [*model.parameters(), *around.parameters()]
        return mse(learner(X[6:]), Y[6:]), tensors

    hold(program, variant)


@named_variants
@places
@replacements
def test_with_a_hyperparameter(replacement, when, variant):
    def program(make):
        model, around = mlp(), nn.Linear(4, 18)
        lam = torch.full((6,), 0.3, requires_grad=True)
        learner = make(model, hyperparameters=lam, allow_unused=True).clone()
        for step in range(2):
            if step in when:
                replacement(learner, around)
            losses = (learner(X[:6]) - Y[:6]).square().mean(1)
            learner.adapt((lam * losses).mean())
        return mse(learner(X[6:]), Y[6:]), [lam]

    hold(program, variant)


@plain_variants
@replacements
def test_the_weights_that_replaced_move(replacement, variant):
    def program(make):
        model, around = mlp(), nn.Linear(4, 18)
        learner = make(model, allow_unused=True).clone()
        replacement(learner, around)
        before = {name: p.detach().clone() for name, p in weights(learner).items()}
        learner.adapt(mse(learner(X[:6]), Y[:6]))
        after = weights(learner)
        assert all(not torch.equal(after[n], before[n]) for n in before)
        return list(after.values())

    hold(program, variant)


@pytest.mark.parametrize("memory", ["graph", "recompute"])
def test_a_tensor_that_does_not_require_grad_stays(memory):
    torch.manual_seed(0)
    model = mlp()
    learner = EvoGradMetaOptimizer(model, 0.1, memory=memory).clone()
    by_a_frozen_tensor(learner, None)
    learner.adapt(mse(learner(X[:6]), Y[:6]))
    assert torch.equal(learner.module[2].bias, torch.ones(3))
    assert not torch.equal(learner.module[2].weight, model[2].weight)
    mse(learner(X[6:]), Y[6:]).backward()
    assert model[2].bias.grad is None
    assert model[2].weight.grad is not None
