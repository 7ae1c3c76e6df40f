"""A module that puts a new tensor in place of a buffer, instead of writing to it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from l2l_evograd import EvoGrad, Exact, Guided, bilevel_step, hypergradient
from l2l_evograd.unroll import forward_mode, greedy, reversible_sgd, unrolled_sgd

pytestmark = pytest.mark.usefixtures("float64")

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randint(2, (12,), generator=torch.Generator().manual_seed(1))


class Centred(nn.Module):
    """Takes away a moving average, which each training call changes."""

    def __init__(self, replaces: bool) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))
        self.replaces = replaces

    def forward(self, x):
        if self.training:
            new = 0.5 * self.mean + 0.5 * x.detach().mean(0)
            if self.replaces:
                self.mean = new
            else:
                self.mean.copy_(new)
        return x - self.mean


def network(replaces):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), Centred(replaces), nn.Tanh(), nn.Linear(4, 2))


def outer(view):
    view.eval()
    return F.cross_entropy(view(0.5 * X + 0.1), Y)


def problem(replaces):
    net, lam = network(replaces), nn.Parameter(torch.zeros(12))

    def inner(view):
        return (F.cross_entropy(view(X), Y, reduction="none") * lam.exp()).mean()

    return inner, net, lam


@pytest.mark.parametrize("estimator", [Exact(), Guided(), EvoGrad()], ids=str)
def test_several_steps_see_the_new_buffer(estimator):
    found = []
    for replaces in (False, True):
        inner, net, lam = problem(replaces)
        torch.manual_seed(3)
        result = hypergradient(
            inner, outer, net, [lam], lr=0.3, steps=4, estimator=estimator
        )
        found.append(result.gradients[0])
        assert not net[1].mean.any()
    assert found[0].abs().sum() > 0
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize("mode", [unrolled_sgd, forward_mode, reversible_sgd, greedy])
def test_a_whole_run_sees_the_new_buffer(mode):
    found = []
    for replaces in (False, True):
        inner, net, lam = problem(replaces)
        result = mode(inner, outer, net, [lam], lr=0.3, momentum=0.5, steps=4)
        found.append(result.gradients[0])
        assert not net[1].mean.any()
    assert found[0].abs().sum() > 0
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize("estimator", [Exact(), Guided(), EvoGrad()], ids=str)
def test_a_training_loop_moves_the_buffer(estimator):
    found = []
    for replaces in (False, True):
        inner, net, lam = problem(replaces)
        base = torch.optim.SGD(net.parameters(), lr=0.1)
        hyper = torch.optim.SGD([lam], lr=0.1)
        torch.manual_seed(3)
        for _ in range(3):
            bilevel_step(net, inner, outer, base, hyper, estimator=estimator)
        found.append((net[1].mean, lam.detach()))
    assert found[0][0].abs().sum() > 0
    for written, replaced in zip(*found, strict=True):
        assert torch.equal(written, replaced)


class Remembering(nn.Module):
    """Adds what it computed in its last call, from an attribute that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 2)
        self.calls = 0
        self.last = None

    def forward(self, x):
        found = self.inner(x)
        if self.last is not None:
            found = found + self.last
        self.last = found.detach().mean(0)
        self.calls += 1
        return found


def test_state_outside_of_buffers_is_warned_of():
    net, lam = Remembering(), nn.Parameter(torch.zeros(12))

    def inner(view):
        return (F.cross_entropy(view(X), Y, reduction="none") * lam.exp()).mean()

    words = "the inner loss set (last, calls|calls, last), and the next step begins"
    with pytest.warns(UserWarning, match=words):
        hypergradient(inner, outer, net, [lam], lr=0.1, steps=2)
    for mode in (unrolled_sgd, forward_mode, reversible_sgd, greedy):
        with pytest.warns(UserWarning, match=words):
            mode(inner, outer, net, [lam], lr=0.1, momentum=0.5, steps=2)
    # With one step nothing is handed on.
    hypergradient(inner, outer, net, [lam], lr=0.1)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_what_every_call_computes_anew_is_not_warned_of():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.utils.weight_norm(nn.Linear(4, 4)),
        nn.utils.spectral_norm(nn.Linear(4, 4)),
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
        nn.BatchNorm1d(4),
        nn.Dropout(),
        nn.Linear(4, 2),
    )
    lam = nn.Parameter(torch.zeros(12))

    def inner(view):
        view.train()
        return (F.cross_entropy(view(X), Y, reduction="none") * lam.exp()).mean()

    hypergradient(inner, outer, net, [lam], lr=0.1, steps=2, estimator=Guided())
