"""The graph of a single inner step is kept, one at a time, and nothing else is."""

import copy
import gc
import pickle

import learn2learn as l2l
import pytest
import torch
from by_hand import ByHand, largest_gap, meta_gradients
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from l2l_evograd import EvoGradMetaOptimizer, hypergradient
from l2l_evograd.stored import Shelf, StoredGraph


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


@pytest.mark.parametrize(("steps", "again"), [(1, 0), (2, 2), (5, 5)])
def test_each_of_several_steps_pays_a_second_forward_pass(steps, again):
    model, x, y, passes = counting()
    query_after(EvoGradMetaOptimizer(model, 0.1), x, y, steps).backward()
    assert len(passes) == steps + 1 + again


def test_an_exact_hypergradient_of_one_step_pays_no_second_forward_pass():
    model, x, y, passes = counting()
    weights = torch.ones(7, requires_grad=True)

    def inner(view):
        return (weights * F.cross_entropy(view(x), y, reduction="none")).mean()

    def outer(view):
        return F.cross_entropy(view(x), y)

    hypergradient(inner, outer, model, weights, lr=0.1, estimator="exact")
    assert len(passes) == 2


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("order", ["one backward for all", "backwards in between"])
def test_interleaved_learners_get_mamls_gradients(steps, first_order, order):
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
    ours = EvoGradMetaOptimizer(model, 0.1, first_order=first_order)
    theirs = l2l.algorithms.MAML(copy.deepcopy(model), 0.1, first_order=first_order)
    _, found = meta_gradients(ours, run, params)
    _, expected = meta_gradients(theirs, run, list(theirs.module.parameters()))
    assert largest_gap(found, expected) < 1e-12


@pytest.mark.usefixtures("float64")
def test_backward_can_be_called_twice_with_retain_graph():
    model, x, y, _ = counting()
    loss = query_after(EvoGradMetaOptimizer(model, 0.1), x, y, 2)
    loss.backward(retain_graph=True)
    once = [p.grad.clone() for p in model.parameters()]
    loss.backward()
    pairs = zip(model.parameters(), once, strict=True)
    assert all(torch.allclose(p.grad, 2 * g, rtol=1e-10, atol=1e-14) for p, g in pairs)


def test_the_shelf_holds_one_graph_and_keeps_none_alive():
    x = torch.ones(2, requires_grad=True)
    graphs = [StoredGraph([x * 2], [x], []) for _ in range(2)]
    shelf = Shelf()
    for graph in graphs:
        shelf.clear()
        shelf.put(graph)
    assert graphs[0].mixed([torch.ones(2)], [], True) is None
    (curvature,), _ = graphs[1].mixed([torch.ones(2)], [], True)
    assert torch.equal(curvature, torch.full((2,), 2.0))
    assert graphs[1].mixed([torch.ones(2)], [], True) is None
    del graphs, graph
    shelf.clear()


def test_copies_and_pickles_of_a_meta_optimizer_have_shelves_of_their_own():
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


@pytest.mark.parametrize(("first_order", "growth"), [(False, 1.2), (True, 0.1)])
def test_memory_grows_by_the_weights_of_each_step_alone(first_order, growth):
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
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    x, y = torch.randn(20, 3, 16, 16), torch.arange(20) % 5
    meta = EvoGradMetaOptimizer(model, 0.01, first_order=first_order)

    def episode(steps):
        meta.zero_grad()
        query_after(meta, x, y, steps).backward()

    episode(1)
    few, many = peak(lambda: episode(2)), peak(lambda: episode(8))
    assert many - few <= growth * weights * 6


def test_no_graph_of_several_steps_stands_beside_that_of_the_outer_loss():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16 * 196, 5)
    )
    x, y = torch.randn(20, 3, 16, 16), torch.arange(20) % 5
    meta = EvoGradMetaOptimizer(model, 0.01)

    def episode(steps):
        learner = meta.clone()
        for _ in range(steps):
            learner.adapt(F.cross_entropy(learner(x[:5]), y[:5]))
        meta.zero_grad()
        F.cross_entropy(learner(x), y).backward()

    episode(1)
    activations = 5 * 16 * 196 * 4
    assert peak(lambda: episode(1)) - peak(lambda: episode(3)) > activations


@pytest.mark.parametrize("kept", ["numbers", "detached losses", "accuracies"])
@pytest.mark.parametrize("first_order", [False, True])
def test_evaluation_without_backward_holds_no_more_after_many_tasks(kept, first_order):
    model, x, y, _ = counting()
    meta = EvoGradMetaOptimizer(model, 0.1, first_order=first_order)
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


class Checkpointed(nn.Module):
    """Makes its activations again in the backward pass, if asked to."""

    def __init__(self, again):
        super().__init__()
        self.again = again
        self.body = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        if self.again:
            return self.head(checkpoint(self.body, x, use_reentrant=False))
        return self.head(self.body(x))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("steps", [1, 2])
def test_activation_checkpoints_inside_the_model_use_the_weights_of_their_step(steps):
    torch.manual_seed(0)
    x, y = torch.randn(7, 4), torch.arange(7) % 3
    model = Checkpointed(again=True)
    twin = Checkpointed(again=False)
    twin.load_state_dict(model.state_dict())
    query_after(EvoGradMetaOptimizer(model, 0.5), x, y, steps).backward()
    query_after(l2l.algorithms.MAML(twin, 0.5), x, y, steps).backward()
    pairs = zip(model.parameters(), twin.parameters(), strict=True)
    assert all(torch.allclose(p.grad, q.grad, rtol=1e-10) for p, q in pairs)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.into, self.out = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x):
        q, k, v = self.into(x).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])
        return self.out(mixed[:, 0].mean(dim=1))


def encoder():
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(20, 3))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # learn2learn, for LSTMs
@pytest.mark.parametrize("make", [Attention, encoder, Recurrent])
@pytest.mark.parametrize("steps", [1, 2])
def test_fused_kernels_are_differentiated_twice_where_learn2learn_cannot(make, steps):
    torch.manual_seed(0)
    model, x, y = make(), torch.randn(7, 5, 4), torch.arange(7) % 3
    twin = copy.deepcopy(model)
    query_after(EvoGradMetaOptimizer(model, 0.1), x, y, steps).backward()
    with sdpa_kernel(SDPBackend.MATH):
        query_after(l2l.algorithms.MAML(twin, 0.1), x, y, steps).backward()
    pairs = zip(model.parameters(), twin.parameters(), strict=True)
    assert all(torch.allclose(p.grad, q.grad, rtol=1e-9) for p, q in pairs)


@pytest.mark.parametrize("make", [Attention, encoder, Recurrent])
@pytest.mark.parametrize("estimator", ["guided", "evograd", "exact"])
def test_every_estimator_goes_through_fused_kernels(make, estimator):
    torch.manual_seed(0)
    model, x, y = make(), torch.randn(7, 5, 4), torch.arange(7) % 3
    lam = torch.zeros(7, requires_grad=True)
    meta = EvoGradMetaOptimizer(model, 0.1, hyperparameters=lam, estimator=estimator)
    learner = meta.clone()
    losses = F.cross_entropy(learner(x), y, reduction="none")
    learner.adapt((lam.exp() * losses).mean())
    F.cross_entropy(learner(x), y).backward()
    assert lam.grad.abs().sum() > 0 and lam.grad.isfinite().all()


class FusedSquare(torch.autograd.Function):
    """Stands for a kernel of cuDNN: x², once differentiable."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad


class OnCudnn(nn.Module):
    """Takes the fused kernel where cuDNN is on, or whether or not."""

    def __init__(self, always):
        super().__init__()
        self.always, self.first, self.head = always, nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        hidden = self.first(x)
        fused = self.always or torch.backends.cudnn.enabled
        return self.head(FusedSquare.apply(hidden) if fused else hidden * hidden)


@pytest.mark.usefixtures("float64")
def test_a_kernel_of_cudnn_without_a_second_derivative_is_avoided():
    torch.manual_seed(0)
    model, x, y = OnCudnn(always=False), torch.randn(7, 4), torch.arange(7) % 3
    params = list(model.parameters())
    before = torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark
    _, found = meta_gradients(
        EvoGradMetaOptimizer(model, 0.1), lambda m: query_after(m, x, y, 2), params
    )
    assert (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark) == before
    with torch.backends.cudnn.flags(enabled=False):
        _, expected = meta_gradients(
            ByHand(model, 0.1), lambda m: query_after(m, x, y, 2), params
        )
    assert largest_gap(found, expected) < 1e-12


def test_what_cannot_be_differentiated_twice_says_what_to_do():
    model, x, y = OnCudnn(always=True), torch.randn(7, 4), torch.arange(7) % 3
    query_after(EvoGradMetaOptimizer(model, 0.1, first_order=True), x, y, 1).backward()
    loss = query_after(EvoGradMetaOptimizer(model, 0.1), x, y, 1)
    with pytest.raises(RuntimeError, match=r"differentiated twice.*first_order=True"):
        loss.backward()
