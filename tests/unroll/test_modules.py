"""Modules: masks and statistics repeat, and nothing of the user's is changed."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from training_runs import distance, losses, outer, weights
from untouched import untouched

from l2l_evograd.unroll import forward_mode, greedy, reversible_sgd, unrolled_sgd

pytestmark = pytest.mark.usefixtures("float64")

MODES = [unrolled_sgd, forward_mode, reversible_sgd, greedy]

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randint(3, (24,), generator=torch.Generator().manual_seed(1))


def network(dropout=0.2):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8),
        nn.BatchNorm1d(8),
        nn.Tanh(),
        nn.Dropout(dropout),
        nn.Linear(8, 3),
    )


def inner(view, batch):
    return F.cross_entropy(view(X[batch]), Y[batch])


def batches(steps):
    rng = torch.Generator().manual_seed(2)
    return [
        partial(inner, batch=torch.randperm(24, generator=rng)[:12])
        for _ in range(steps)
    ]


def query(view):
    view.eval()
    return F.cross_entropy(view(X), Y)


def given(steps=25, **changed):
    return {
        "lr": torch.full((3,), 0.1),
        "momentum": torch.tensor([0.875]),
        "weight_decay": torch.tensor(0.01),
        "steps": steps,
        **changed,
    }


def by_hand(net, steps):
    """The same run through functional_call, in the order in which a user writes it."""
    leaves = [torch.full((3,), 0.1), torch.tensor([0.875]), torch.tensor(0.01)]
    lr, beta, decay = (leaf.requires_grad_() for leaf in leaves)
    params = {n: p.detach().requires_grad_() for n, p in net.named_parameters()}
    buffers = {n: b.clone() for n, b in net.named_buffers()}
    velocity = {n: torch.zeros_like(p) for n, p in params.items()}
    for t, loss in enumerate(batches(steps)):
        buffers = {n: b.clone() for n, b in buffers.items()}
        now = params, buffers

        def view(x, now=now):
            return torch.func.functional_call(net, now, (x,))

        grads = torch.autograd.grad(
            loss(view), list(params.values()), create_graph=True
        )
        new = {}
        for (n, p), g in zip(params.items(), grads, strict=True):
            velocity[n] = beta[0] * velocity[n] + g + decay * p
            new[n] = p - lr[t * 3 // steps] * velocity[n]
        params = new
    net.eval()
    last = F.cross_entropy(torch.func.functional_call(net, (params, buffers), (X,)), Y)
    net.train()
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(last, [lr, beta, decay])]
    )


@pytest.mark.parametrize("mode", MODES[:3])
def test_dropout_and_batch_norm_repeat(mode):
    net = network()
    torch.manual_seed(5)
    expected = by_hand(net, 25)
    after = torch.get_rng_state()
    torch.manual_seed(5)
    with torch.no_grad():
        got = mode(batches(25), query, net, **given())
    # As after one call of each loss.
    assert torch.equal(torch.get_rng_state(), after)
    found = torch.cat([g.flatten() for g in got.schedule.values()])
    assert float((found - expected).norm() / expected.norm()) < 1e-8


@pytest.mark.parametrize("mode", MODES)
def test_the_user_s_things_are_untouched(mode):
    net, lam = network(0.0), nn.Parameter(torch.zeros(24))
    net[0].bias.requires_grad_(False)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    options = given(5, init={"scale": torch.tensor(0.1)})
    options["lr"].requires_grad_()

    def loss(view):
        each = F.cross_entropy(view(X), Y, reduction="none")
        return (each * lam.exp()).mean()

    tensors = [options[k] for k in ("lr", "momentum", "weight_decay")]
    with untouched(net, lam, options["init"]["scale"], *tensors):
        got = mode(loss, query, net, [lam], **options)
    assert got.gradients[0].shape == (24,) and got.gradients[0].abs().sum() > 0
    assert list(got.params) == [n for n, p in net.named_parameters() if p.requires_grad]
    assert not any(
        t.requires_grad
        for t in (*got.schedule.values(), got.outer_loss, *got.gradients)
    )


@pytest.mark.parametrize("mode", MODES)
def test_the_random_state_afterwards(mode):
    net = network()
    torch.manual_seed(5)
    mode(batches(6), lambda view: inner(view, slice(None)), net, **given(6))
    after = torch.get_rng_state()
    torch.manual_seed(5)
    for loss in batches(6):
        loss(net)
    net(X)
    assert torch.equal(torch.get_rng_state(), after)


def test_a_dict_of_weights_with_random_numbers():
    def loss(params, lam):
        scores = torch.tanh(F.dropout(X @ params["a"].T + params["b"]))
        return F.cross_entropy(scores @ params["c"].T, Y)

    results = []
    for mode in MODES[:3]:
        torch.manual_seed(7)
        results.append(mode(loss, outer, weights(), **given()))
    for result in results[1:]:
        assert distance(result, results[0]) < 1e-8


class Averaged(nn.Module):
    """A layer whose output depends on a buffer that every call moves."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -0.3, 0.2, 0.1]))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("constant", torch.ones(4))

    def forward(self, x):
        y = (x - self.mean) * self.constant * self.weight
        self.mean.mul_(0.5).add_(x.mean(0), alpha=0.5)
        return y.sum(1)


def test_buffers_that_steps_change_are_restored():
    rng = torch.Generator().manual_seed(3)
    net, xs = Averaged(), torch.randn(20, 6, 4, generator=rng)
    steps = [partial(lambda view, x: view(x).sin().square().mean(), x=x) for x in xs]
    results = [
        mode(steps, lambda view: view(X).square().mean(), net, **given(20))
        for mode in MODES[:3]
    ]
    assert net.mean.abs().sum() == 0
    for result in results[1:]:
        assert distance(result, results[0]) < 1e-8


def test_kernels_that_round_differently_with_a_graph():
    # Their backward pass has two forms, and a run must use the same one both ways.
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 8), nn.SiLU())
    net.extend([nn.GroupNorm(2, 8), nn.Mish(), nn.Linear(8, 3)])
    net.float()

    def loss(view):
        return F.cross_entropy(view(X.float()), Y)

    results = [mode(loss, loss, net, **given(30)) for mode in MODES[:3]]
    for result in results[1:]:
        assert distance(result, results[0]) < 1e-3


def test_convolutions_and_pooling():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 3)
    )
    x = torch.randn(24, 1, 8, 8)

    def loss(view):
        return F.cross_entropy(view(x), Y)

    results = [mode(loss, loss, net, **given(8)) for mode in MODES[:3]]
    for result in results[1:]:
        assert distance(result, results[0]) < 1e-8


def test_batches_can_be_made_when_they_are_needed():
    class Lazy:
        def __init__(self):
            self.asked = []

        def __len__(self):
            return 9

        def __getitem__(self, step):
            self.asked.append(step)
            return losses(9)[step]

    lazy = Lazy()
    options = {"lr": torch.tensor(0.1), "momentum": 0.5, "steps": 9}
    got = reversible_sgd(lazy, outer, weights(), **options)
    assert lazy.asked == [*range(9), *reversed(range(9))]
    assert distance(got, unrolled_sgd(losses(9), outer, weights(), **options)) < 1e-9


@pytest.mark.parametrize("mode", MODES)
def test_how_often_the_losses_are_called(mode):
    calls = []

    def loss(params, lam):
        calls.append("inner")
        return sum(p.square().sum() for p in params.values())

    def last(params, lam):
        calls.append("outer")
        return params["a"].square().sum() + params["b"].sum() + params["c"].sum()

    mode(loss, last, weights(), lr=torch.tensor(0.01), momentum=0.5, steps=3)
    expected = ["inner"] * 3 + ["outer"]
    if mode is greedy:
        expected = ["inner", "outer"] * 3
    if mode is reversible_sgd:
        expected += ["inner"] * 3
    assert calls == expected
