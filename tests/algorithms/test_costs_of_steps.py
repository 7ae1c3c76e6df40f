"""What steps cost: forward passes, memory, and nothing after they are gone."""

import copy
import gc
import pickle

import learn2learn as l2l
import pytest
import torch
from by_hand import largest_gap, meta_gradients
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from l2l_evograd import EvoGradMetaOptimizer, hypergradient


class Counting(nn.Module):
    """A network that counts its forward passes, whoever's copy makes them."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls
        self.body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh())
        self.drop, self.head = nn.Dropout(0.3), nn.Linear(6, 3)

    def forward(self, x):
        self.calls()
        return self.head(self.drop(self.body(x)))


def counting():
    torch.manual_seed(0)
    passes = []
    model = Counting(lambda: passes.append(1))
    return model, torch.randn(7, 4), torch.arange(7) % 3, passes


def query_after(meta, x, y, steps):
    learner = meta.clone()
    for _ in range(steps):
        learner.adapt(F.cross_entropy(learner(x), y))
    return F.cross_entropy(learner(x), y)


@pytest.mark.parametrize("memory", ["graph", "recompute"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_model_is_called_once_for_each_loss(steps, memory):
    model, x, y, passes = counting()
    meta = EvoGradMetaOptimizer(model, 0.1, memory=memory)
    query_after(meta, x, y, steps).backward()
    assert len(passes) == steps + 1


@pytest.mark.parametrize("estimator", ["exact", "guided", "evograd"])
def test_a_hypergradient_of_one_step_calls_the_model_twice(estimator):
    model, x, y, passes = counting()
    weights = torch.ones(7, requires_grad=True)

    def inner(view):
        return (weights * F.cross_entropy(view(x), y, reduction="none")).mean()

    def outer(view):
        return F.cross_entropy(view(x), y)

    hypergradient(inner, outer, model, weights, lr=0.1, estimator=estimator)
    assert len(passes) == 2


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(
    "settings", [{}, {"first_order": True}, {"memory": "recompute"}]
)
@pytest.mark.parametrize("order", ["one backward for all", "backwards in between"])
def test_interleaved_learners_get_mamls_gradients(steps, settings, order):
    model, x, y, _ = counting()
    model.drop.p = 0.0
    together = order == "one backward for all"

    def run(meta):
        learners = [meta.clone() for _ in range(3)]
        for _ in range(steps):
            for k, learner in enumerate(learners):
                learner.adapt(F.cross_entropy(learner(x + k), y))
        losses = [F.cross_entropy(learner(x), y) for learner in learners]
        if not together:
            for loss in losses[1:]:
                loss.backward()
        return sum(losses) if together else losses[0]

    params = list(model.parameters())
    ours = EvoGradMetaOptimizer(model, 0.1, **settings)
    first_order = settings.get("first_order", False)
    theirs = l2l.algorithms.MAML(copy.deepcopy(model), 0.1, first_order=first_order)
    _, found = meta_gradients(ours, run, params)
    _, expected = meta_gradients(theirs, run, list(theirs.module.parameters()))
    assert largest_gap(found, expected) < 1e-12


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("memory", ["graph", "recompute"])
def test_backward_can_be_called_twice_with_retain_graph(memory):
    model, x, y, _ = counting()
    loss = query_after(EvoGradMetaOptimizer(model, 0.1, memory=memory), x, y, 2)
    loss.backward(retain_graph=True)
    once = [p.grad.clone() for p in model.parameters()]
    loss.backward()
    pairs = zip(model.parameters(), once, strict=True)
    assert all(torch.allclose(p.grad, 2 * g, rtol=1e-10, atol=1e-14) for p, g in pairs)


def test_a_graph_that_was_kept_can_be_differentiated_as_often_as_one_likes():
    model = nn.Linear(2, 1, bias=False).double()
    x = torch.ones(3, 2, dtype=torch.float64)
    learner = EvoGradMetaOptimizer(model, 0.1).clone()
    learner.adapt(learner(x).pow(3).mean())
    loss = learner(x).square().mean()
    (first,) = torch.autograd.grad(loss, model.weight, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), model.weight)
    s = model.weight.detach().sum()  # s' = s - 0.6 s², dL/ds = 2 s' (1 - 1.2 s)
    moved, slope = s - 0.6 * s**2, 1 - 1.2 * s
    expected = 2 * (2 * slope**2 - 2.4 * moved)
    torch.testing.assert_close(second, expected.expand(1, 2), rtol=1e-10, atol=1e-12)


def test_copies_and_pickles_of_a_meta_optimizer_adapt_by_themselves():
    model = nn.Linear(4, 3)
    x, y = torch.randn(5, 4), torch.arange(5) % 3
    meta = EvoGradMetaOptimizer(model, 0.1)
    pending = query_after(meta, x, y, 1)
    for other in (copy.deepcopy(meta), pickle.loads(pickle.dumps(meta))):
        query_after(other, x, y, 1).backward()
        assert other.module.weight.grad is not None
    pending.backward()


def peak(function):
    """Return the most bytes that tensors took at once, by the allocator's own count."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        function()
    events = record.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    used = most = 0
    for _, change in sorted(changes, key=lambda pair: pair[0]):
        used += change
        most = max(most, used)
    return most


SETTINGS = {
    "computed again": ({"memory": "recompute"}, 1.2),
    "nothing kept by choice": ({"memory_limit": 0}, 1.2),
    "first order": ({"first_order": True}, 0.1),
}


def convolutional():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 64, 64),
        nn.ReLU(),
        nn.Linear(64, 5),
    )
    return model, torch.randn(20, 3, 16, 16), torch.arange(20) % 5


def growth_over_six_steps(settings):
    """Return the memory of six more steps, in sizes of the weights each."""
    model, x, y = convolutional()
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    meta = EvoGradMetaOptimizer(model, 0.01, **settings)

    def episode(steps):
        meta.zero_grad()
        query_after(meta, x, y, steps).backward()

    episode(1)
    few, many = peak(lambda: episode(2)), peak(lambda: episode(8))
    return (many - few) / (weights * 6)


@pytest.mark.parametrize("name", SETTINGS)
def test_memory_grows_by_the_weights_of_each_step_alone(name):
    settings, growth = SETTINGS[name]
    assert growth_over_six_steps(settings) <= growth


def test_a_limit_bounds_what_is_kept():
    whole = growth_over_six_steps({"memory": "graph"})
    assert whole > 2 * SETTINGS["computed again"][1]
    assert growth_over_six_steps({}) == pytest.approx(whole, rel=0.01)
    two_steps = {"memory_limit": 1_500_000}
    assert growth_over_six_steps(two_steps) < 0.7 * whole


@pytest.mark.parametrize("kept", ["numbers", "detached losses", "accuracies"])
@pytest.mark.parametrize(
    "settings", [{}, {"first_order": True}, {"memory": "recompute"}]
)
def test_evaluation_without_backward_holds_no_more_after_many_tasks(kept, settings):
    model, x, y, _ = counting()
    meta = EvoGradMetaOptimizer(model, 0.1, **settings)
    figures = []

    def task():
        learner = meta.clone()
        for _ in range(2):
            learner.adapt(F.cross_entropy(learner(x), y))
        out = learner(x)
        loss = F.cross_entropy(out, y)
        if kept == "numbers":
            figures.append(loss.item())
        elif kept == "detached losses":
            figures.append(loss.detach())
        else:
            figures.append((out.argmax(dim=1) == y).sum().float() / len(y))

    def elements():
        found = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
        return sum(tensor.numel() for tensor in found)

    task()
    gc.collect()
    gc.disable()
    try:
        before = elements()
        for _ in range(100):
            task()
        grown = elements() - before
    finally:
        gc.enable()
    assert grown <= (0 if kept == "numbers" else 100)
