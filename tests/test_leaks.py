import gc
import weakref

import pytest
import torch
from marked import Square, data
from torch.nn import functional as F

from l2l_evograd import EvoGradMetaOptimizer, hypergradient

pytestmark = pytest.mark.usefixtures("float64")


def test_nothing_lives_on_after_learner_and_loss_are_gone():
    model, x, y = data()
    meta = EvoGradMetaOptimizer(model, 0.1)
    gc.collect()
    gc.disable()
    try:
        learner = meta.clone()
        out = learner(x)
        inner = F.cross_entropy(out, y)
        learner.adapt(inner)
        loss = F.cross_entropy(learner(x), y)
        watched = [learner, learner.module, learner.head, out, inner, loss, out._node]
        refs = [weakref.ref(w) for w in watched if not hasattr(type(w), "__slots__")]
        loss.backward()
        del learner, out, inner, loss, watched
        assert [ref() for ref in refs] == [None] * len(refs)
    finally:
        gc.enable()


def growth(episode):
    """Return how many tensors more there are after fifteen episodes."""

    def live():
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    episode()
    gc.collect()
    gc.disable()
    try:
        before = live()
        for _ in range(15):
            episode()
        return live() - before
    finally:
        gc.enable()


def test_writes_through_views_leave_no_tensors_behind():
    model, x, y = data()

    def episode():
        learner = EvoGradMetaOptimizer(model, 0.1).clone()
        out = learner(x) * 1
        out[0].mul_(2)
        learner.adapt(F.cross_entropy(out, y))

    assert growth(episode) <= 0


@pytest.mark.parametrize("form", ["tensor", "callable", "called again"])
@pytest.mark.parametrize("backward", [False, True])
def test_many_episodes_leave_no_tensors_behind(form, backward):
    model, x, y = data()
    lam = torch.ones((), requires_grad=True)
    meta = EvoGradMetaOptimizer(model, 0.1, hyperparameters=lam)

    def loss_of(view):
        out = view(x)
        out = Square.apply(out) if form == "called again" else out
        losses = torch.zeros(2)
        losses[0] = F.cross_entropy(out, y) * lam
        losses[1] = out.square().mean()
        loss = losses.sum()
        loss /= 2
        return loss

    def episode():
        learner = meta.clone()
        for _ in range(2):
            learner.adapt(loss_of(learner) if form == "tensor" else loss_of)
        loss = F.cross_entropy(learner(x), y)
        if backward:
            loss.backward()

    assert growth(episode) <= 0


def test_a_hypergradient_leaves_no_tensors_behind():
    model, x, y = data()
    lam = torch.ones((), requires_grad=True)

    def episode():
        hypergradient(
            lambda view: lam * F.cross_entropy(view(x), y),
            lambda view: F.cross_entropy(view(x), y),
            model,
            lam,
            lr=0.1,
            steps=2,
        )

    assert growth(episode) <= 0


def test_a_step_keeps_no_activations_until_backward():
    """Between adapt and backward live the inputs, the weights and the values read."""
    model, x, y = data()
    learner = EvoGradMetaOptimizer(model, 0.1, first_order=True).clone()
    out = learner(x)
    kept = weakref.ref(out)
    learner.adapt(F.cross_entropy(out, y))
    loss = F.cross_entropy(learner(x), y)
    del out
    gc.collect()
    assert kept() is None
    loss.backward()
