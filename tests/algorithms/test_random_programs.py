import random

import pytest
import torch
from by_hand import ByHand, largest_gap, meta_gradients
from torch import nn
from torch.nn import functional as F

from l2l_evograd import EvoGradMetaOptimizer

pytestmark = pytest.mark.usefixtures("float64")


def written(t, u, row):
    t[row, :2] = u[0, 2:]


def without_grad(t, u):
    with torch.no_grad():
        return u.tanh() + t


OPERATIONS = [
    lambda t, u, row: torch.tanh(t) + u,
    lambda t, u, row: t.detach() * u,
    lambda t, u, row: without_grad(t, u),
    lambda t, u, row: F.dropout(t, 0.3),
    lambda t, u, row: torch.where(u > 0, t, t * 0.5),
    lambda t, u, row: t.t(),
    lambda t, u, row: t.detach(),
    lambda t, u, row: t[[1, 0, 3, 2]],
    lambda t, u, row: torch.cat(t.split(2)),
    lambda t, u, row: t.flip(0).sort(0).values,
    lambda t, u, row: t.add_(u.t() * 0.3),
    lambda t, u, row: t.mul_(0.7),
    lambda t, u, row: t[row].add_(u[row - 1] * 0.5),
    lambda t, u, row: t[row].zero_(),
    lambda t, u, row: t[:2].mul_(u[row].sigmoid()),
    lambda t, u, row: t.diagonal().copy_(u[row]),
    written,
]


def random_loss(out, lam, seed):
    """Compute something by ten operations drawn at random, writes included."""
    draw = random.Random(seed)
    pool = [out * 1, lam * 1, torch.zeros(4, 4)]
    for _ in range(10):
        operation = draw.choice(OPERATIONS)
        made = operation(draw.choice(pool), draw.choice(pool), draw.randrange(4))
        if made is not None and made.shape == (4, 4):
            pool.append(made)
    return sum((1 + k) * t.tanh().mean() for k, t in enumerate(pool)) / len(pool)


@pytest.mark.parametrize("form", ["tensor", "callable"])
def test_random_programs_give_the_gradients_of_maml_or_are_refused(form):
    torch.manual_seed(1)
    model, x = nn.Linear(4, 4), torch.randn(4, 4)
    lam = torch.randn(4, 4, requires_grad=True)
    tensors = [*model.parameters(), lam]
    ours = EvoGradMetaOptimizer(model, 0.3)
    again = EvoGradMetaOptimizer(model, 0.3, memory="recompute", check="always")
    equal = 0
    for seed in range(150):

        def run(meta, seed=seed):
            learner = meta.clone()
            if form == "tensor":
                learner.adapt(random_loss(learner(x), lam, seed))
            else:
                learner.adapt(lambda view: random_loss(view(x), lam, seed))
            return learner(x).square().mean()

        try:
            _, expected = meta_gradients(ByHand(model, 0.3), run, tensors)
        except RuntimeError:
            continue  # writes that autograd itself refuses
        _, found = meta_gradients(ours, run, tensors)
        assert largest_gap(found, expected) < 1e-10, seed
        try:
            _, found = meta_gradients(again, run, tensors)
        except (TypeError, RuntimeError) as error:
            assert any(
                reason in str(error)
                for reason in ("pass a callable", "changed in place", "inplace operati")
            ), (seed, error)
            continue
        assert largest_gap(found, expected) < 1e-10, seed
        equal += 1
    assert equal > 70


@pytest.mark.parametrize("settings", [{}, {"memory": "recompute"}])
@pytest.mark.parametrize("form", ["tensor", "callable"])
@pytest.mark.parametrize("alias", ["a view", "a detached tensor"])
def test_a_write_through_an_alias_is_followed_or_refused(alias, form, settings):
    model, x = nn.Linear(4, 3), torch.randn(6, 4)

    def loss_of(learner):
        buffer = torch.ones(6, 3)
        half = buffer[:3] if alias == "a view" else buffer.detach()[:3]
        buffer *= learner(x)
        with torch.no_grad():
            half.mul_(2)  # a tensor without a history, in the memory of one with it
        return buffer.sum()

    def run(meta):
        learner = meta.clone()
        learner.adapt(loss_of if form == "callable" else loss_of(learner))
        return learner(x).square().mean()

    params = list(model.parameters())
    _, expected = meta_gradients(ByHand(model, 0.1), run, params)
    try:
        _, found = meta_gradients(
            EvoGradMetaOptimizer(model, 0.1, check="always", **settings), run, params
        )
    except (TypeError, RuntimeError):
        assert settings
        return
    assert largest_gap(found, expected) < 1e-10
