import gc
import weakref

import pytest
import torch
from marked import Square, data
from torch.nn import functional as F

from l2l_evograd import EvoGradMetaOptimizer, hypergradient

pytestmark = pytest.mark.usefixtures("float64")


LAM = torch.ones((), dtype=torch.float64, requires_grad=True)
SETTINGS = {
    "graph": {},
    "first order": {"first_order": True},
    "recompute": {"memory": "recompute"},
    "guided": {"hyperparameters": LAM},
    "exact": {"hyperparameters": LAM, "estimator": "exact"},
    "exact, computed again": {
        "hyperparameters": LAM,
        "estimator": "exact",
        "first_order": False,
        "memory": "recompute",
    },
    "evolution": {"hyperparameters": LAM, "update": "evolution"},
}
settings = pytest.mark.parametrize("name", SETTINGS)


def learner_for(model, name):
    return EvoGradMetaOptimizer(model, 0.1, check="always", **SETTINGS[name]).clone()


@settings
def test_nothing_lives_on_after_learner_and_loss_are_gone(name):
    model, x, y = data()
    gc.collect()
    gc.disable()
    try:
        learner = learner_for(model, name)
        out = learner(x)
        inner = F.cross_entropy(out, y) * LAM
        learner.adapt(inner)
        loss = F.cross_entropy(learner(x), y)
        watched = [learner, learner.module, learner.head, out, inner, loss]
        refs = [weakref.ref(w) for w in watched]
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


@settings
@pytest.mark.parametrize("form", ["tensor", "callable"])
@pytest.mark.parametrize("backward", [False, True])
def test_many_episodes_leave_no_tensors_behind(name, form, backward):
    model, x, y = data()

    def loss_of(view):
        out = view(x) * 1
        out[0].mul_(2)
        losses = torch.zeros(2)
        losses[0] = F.cross_entropy(out, y) * LAM
        losses[1] = out.square().mean()
        loss = losses.sum()
        loss /= 2
        return loss

    def episode():
        learner = learner_for(model, name)
        for _ in range(2):
            learner.adapt(loss_of(learner) if form == "tensor" else loss_of)
        loss = F.cross_entropy(learner(x), y)
        if backward:
            loss.backward()

    assert growth(episode) <= 0


def test_losses_that_are_refused_leave_no_tensors_behind():
    model, x, y = data()

    def episode():
        learner = learner_for(model, "guided")
        with pytest.raises(TypeError, match="pass a callable"):
            learner.adapt(lambda view: LAM * Square.apply(view(x)).mean())

    assert growth(episode) <= 0


@pytest.mark.parametrize("estimator", ["guided", "evograd", "exact"])
@pytest.mark.parametrize("memory", ["graph", "recompute"])
# The model counts its calls; here it does not matter that a step begins anew.
@pytest.mark.filterwarnings("ignore:the inner loss set passes:UserWarning")
def test_a_hypergradient_leaves_no_tensors_behind(estimator, memory):
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
            estimator=estimator,
            memory=memory,
        )

    assert growth(episode) <= 0


@pytest.mark.parametrize(
    "name", ["first order", "recompute", "guided", "exact, computed again"]
)
def test_a_step_keeps_no_activations_until_backward(name):
    """Between adapt and backward live the inputs, the weights and the values read."""
    model, x, y = data()
    learner = learner_for(model, name)
    out = learner(x)
    kept = weakref.ref(out)
    learner.adapt(F.cross_entropy(out, y) * LAM)
    loss = F.cross_entropy(learner(x), y)
    del out
    gc.collect()
    assert kept() is None
    loss.backward()
