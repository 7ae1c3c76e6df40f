"""Kernels and parts of models that have no second derivative, or compute again."""

import copy

import learn2learn as l2l
import pytest
import torch
from by_hand import ByHand, largest_gap, meta_gradients
from marked import FusedSquare
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from l2l_evograd import EvoGradMetaOptimizer, Guided

AGAIN = pytest.mark.parametrize("memory", ["auto", "recompute"])


def query_after(meta, x, y, steps):
    learner = meta.clone()
    for _ in range(steps):
        learner.adapt(F.cross_entropy(learner(x), y))
    return F.cross_entropy(learner(x), y)


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


@AGAIN
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_activation_checkpoints_inside_the_model_use_the_weights_of_their_step(
    steps, memory
):
    torch.manual_seed(0)
    x, y = torch.randn(7, 4), torch.arange(7) % 3
    model = Checkpointed(again=True)
    twin = Checkpointed(again=False)
    twin.load_state_dict(model.state_dict())
    query_after(EvoGradMetaOptimizer(model, 0.5, memory=memory), x, y, steps).backward()
    query_after(l2l.algorithms.MAML(twin, 0.5), x, y, steps).backward()
    pairs = zip(model.parameters(), twin.parameters(), strict=True)
    assert all(torch.allclose(p.grad, q.grad, rtol=1e-10) for p, q in pairs)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("again", [False, True])
def test_activation_checkpoints_do_not_change_a_hypergradient(again):
    torch.manual_seed(0)
    model, x, y = Checkpointed(again), torch.randn(7, 4), torch.arange(7) % 3
    twin = Checkpointed(again=False)
    twin.load_state_dict(model.state_dict())
    found = []
    for estimated, settings in [
        (twin, {"estimator": "exact"}),
        (model, {"estimator": "exact"}),
        (model, {"estimator": "exact", "memory": "recompute"}),
        (model, {"estimator": Guided(h=1e-4)}),
    ]:
        lam = torch.zeros(7, requires_grad=True)
        meta = EvoGradMetaOptimizer(estimated, 0.5, hyperparameters=lam, **settings)
        learner = meta.clone()
        for _ in range(2):
            losses = F.cross_entropy(learner(x), y, reduction="none")
            learner.adapt((lam.exp() * losses).mean())
        F.cross_entropy(learner(x), y).backward()
        found.append(lam.grad)
    assert largest_gap([found[0]] * 2, found[1:3]) < 1e-10
    assert largest_gap([found[0]], found[3:]) < 1e-6


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
@AGAIN
def test_fused_kernels_are_differentiated_twice_where_learn2learn_cannot(
    make, steps, memory
):
    torch.manual_seed(0)
    model, x, y = make(), torch.randn(7, 5, 4), torch.arange(7) % 3
    twin = copy.deepcopy(model)
    meta = EvoGradMetaOptimizer(model, 0.1, memory=memory)
    query_after(meta, x, y, steps).backward()
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


class OnCudnn(nn.Module):
    """Takes the fused kernel where cuDNN is on, or whether or not.

    The recurrent layer is what cuDNN is switched off for.
    """

    def __init__(self, always):
        super().__init__()
        self.always, self.first, self.head = always, nn.RNN(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        hidden, _ = self.first(x)
        fused = self.always or torch.backends.cudnn.enabled
        return self.head(FusedSquare.apply(hidden) if fused else hidden * hidden)


@AGAIN
@pytest.mark.usefixtures("float64")
def test_a_kernel_of_cudnn_without_a_second_derivative_is_avoided(memory):
    torch.manual_seed(0)
    model, x, y = OnCudnn(always=False), torch.randn(7, 4), torch.arange(7) % 3
    params = list(model.parameters())
    before = torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark
    meta = EvoGradMetaOptimizer(model, 0.1, memory=memory)
    _, found = meta_gradients(meta, lambda m: query_after(m, x, y, 2), params)
    assert (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark) == before
    with torch.backends.cudnn.flags(enabled=False):
        _, expected = meta_gradients(
            ByHand(model, 0.1), lambda m: query_after(m, x, y, 2), params
        )
    assert largest_gap(found, expected) < 1e-12


def test_what_is_once_differentiable_is_differentiated_once():
    model, x, y = OnCudnn(always=True), torch.randn(7, 4), torch.arange(7) % 3
    query_after(EvoGradMetaOptimizer(model, 0.1, first_order=True), x, y, 1).backward()
    loss = query_after(EvoGradMetaOptimizer(model, 0.1), x, y, 1)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        loss.backward()
    with pytest.raises(TypeError, match="custom torch.autograd.Function"):
        query_after(EvoGradMetaOptimizer(model, 0.1, memory="recompute"), x, y, 1)
