"""Exact by forward over reverse equals double backward."""

import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, ResNet
from zoo import ZOO, problem

from l2l_evograd import Exact, add_feature_transforms, bilevel_step, hypergradient
from l2l_evograd.algorithms.evograd import EvoGradMetaOptimizer
from l2l_evograd.estimators import exact
from l2l_evograd.estimators.exact import (
    NoForwardDerivative,
    exact_mixed,
    forward_mixed,
    lacks_forward,
)
from l2l_evograd.replay.call_state import TwiceDifferentiable
from l2l_evograd.replay.inner_loss import InnerLoss
from l2l_evograd.replay.tensor import Recording
from l2l_evograd.updates import gradient


def inner_loss(model, x, y, autocast=False):
    """ℓ with λ before the network, in it and behind it; θ; and the place of each λ."""
    before = torch.ones((), dtype=x.dtype).requires_grad_()
    behind = torch.linspace(0.5, 1.5, len(x), dtype=x.dtype).requires_grad_()
    params = [p for p in model.parameters() if p.requires_grad]
    with Recording(model.buffers()), TwiceDifferentiable(True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            losses = F.cross_entropy(model(before * x), y, reduction="none")
        value = (behind * losses).mean()
    return InnerLoss(value, params, hold=True), params


# Some of their operations have no forward derivative, or a wrong one.
LACKING = {"group norm", "orthogonal"}


def both(loss, params, params_too=True):
    torch.manual_seed(1)
    v = [torch.randn_like(p) for p in params]
    at = [p.detach() for p in params]
    wanted = range(len(loss.inputs))
    with torch.no_grad():  # as in backward()
        reverse = exact_mixed(loss, at, v, wanted, params_too)
        forward = Exact("forward").mixed_with_weights(loss, at, v, wanted, params_too)
    return [*forward[0], *forward[1]], [*reverse[0], *reverse[1]]


def assert_equal(found, expected, tolerance=1e-10):
    scale = max(float(t.detach().abs().max()) for t in expected)
    assert scale > 0
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).detach().abs().max()) <= tolerance * scale


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("params_too", [False, True])
def test_every_module_of_the_zoo_gets_the_derivatives_of_double_backward(
    name, params_too
):
    model, x, y, *_ = problem(name)
    loss, params = inner_loss(model, x, y)
    assert_equal(*both(loss, params, params_too))
    assert lacks_forward(loss) == (name in LACKING)


@pytest.mark.parametrize("training", [True, False])
def test_feature_wise_transforms_get_the_derivatives_of_double_backward(training):
    torch.manual_seed(0)
    model = add_feature_transforms(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3))
    model.double().train(training)
    x, y = torch.randn(6, 3, 32, 32, dtype=torch.float64), torch.arange(6) % 3
    assert_equal(*both(*inner_loss(model, x, y)))


def test_under_autocast_the_difference_is_that_of_the_lower_precision():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    x, y = torch.randn(6, 6), torch.arange(6) % 3
    assert_equal(*both(*inner_loss(model, x, y, autocast=True)), tolerance=0.05)


def test_complex_weights_get_the_derivatives_of_double_backward():
    torch.manual_seed(0)
    w = torch.randn(3, 4, dtype=torch.complex128).requires_grad_()
    lam = torch.randn(3, dtype=torch.float64).requires_grad_()
    x = torch.randn(4, dtype=torch.complex128)
    with Recording():
        value = (lam * (w @ x).abs().square()).sum()
    assert_equal(*both(InnerLoss(value, [w], hold=True), [w]))


def test_a_direction_of_length_0_gives_0():
    model, x, y, *_ = problem("layer norm")
    loss, params = inner_loss(model, x, y)
    zeros = [torch.zeros_like(p) for p in params]
    with torch.no_grad():
        _, found = forward_mixed(loss, params, zeros, range(len(loss.inputs)))
    assert all(not t.any() for t in found)


def values_written_without_gradients(w, lam):
    """A result that double backward treats as a constant, behind a view."""
    with torch.no_grad():
        held = (2 * w).view(-1)
    return (lam * (held[:3] * w[:3]).square()).sum()


def test_what_is_constant_to_autograd_has_no_tangent():
    w = torch.linspace(1, 2, 6, dtype=torch.float64).requires_grad_()
    lam = torch.linspace(0.5, 1, 3, dtype=torch.float64).requires_grad_()
    with Recording():
        value = values_written_without_gradients(w, lam)
    assert_equal(*both(InnerLoss(value, [w], hold=True), [w]))


# --- which mode is taken, and that all give the same --------------------------------


def small_problem(body=torch.tanh, count=40):
    torch.manual_seed(0)
    x, y = torch.randn(2, count, 4, dtype=torch.float64)
    theta = {"w": torch.randn(4, 4, dtype=torch.float64)}
    lam = torch.ones(count, dtype=torch.float64)

    def inner(params, lam):
        return (lam[:, None] * (body(x @ params["w"]) - y).square()).mean()

    def outer(params, lam):
        return body(y @ params["w"]).square().mean()

    return inner, outer, theta, lam


@pytest.fixture
def calls(monkeypatch):
    """The names of the ways that were taken."""
    taken = []

    def noting(name, function):
        def call(*args, **kwargs):
            taken.append(name)
            return function(*args, **kwargs)

        return call

    forward, reverse = exact.forward_mixed, exact.exact_mixed
    monkeypatch.setattr(exact, "forward_mixed", noting("forward", forward))
    monkeypatch.setattr(exact, "exact_mixed", noting("reverse", reverse))
    monkeypatch.setattr(gradient, "exact_mixed", noting("reverse", reverse))
    return taken


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("memory", ["auto", "graph", "recompute"])
def test_all_modes_give_the_same_hypergradient(steps, memory):
    inner, outer, theta, lam = small_problem()
    found = [
        hypergradient(
            inner, outer, theta, lam, lr=0.1, steps=steps, memory=memory,
            estimator=Exact(mode),
        ).gradients
        for mode in ("reverse", "forward", "auto")
    ]  # fmt: skip
    for one in found[1:]:
        assert torch.allclose(one, found[0], rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize(
    ("mode", "steps", "memory", "count", "expected"),
    [
        ("forward", 1, "auto", 40, ["forward"]),
        ("forward", 2, "auto", 40, ["forward", "forward"]),
        ("reverse", 1, "auto", 40, []),  # autograd's own graph
        ("reverse", 1, "recompute", 40, ["reverse"]),
        ("auto", 1, "auto", 40, []),  # a small graph
        ("auto", 1, "auto", 40_000, ["forward"]),
        ("auto", 2, "auto", 40_000, ["forward"]),  # the second on autograd's graph
        ("auto", 1, "graph", 40_000, []),
        ("auto", 2, "recompute", 40_000, ["reverse", "forward"]),
    ],
)
def test_the_mode_decides_how_the_derivative_is_computed(
    calls, mode, steps, memory, count, expected
):
    inner, outer, theta, lam = small_problem(count=count)
    for _ in range(2):  # the second call knows the size of the graph from the first
        calls.clear()
        hypergradient(
            inner, outer, theta, lam, lr=0.1, steps=steps, memory=memory,
            estimator=Exact(mode), check="never",
        )  # fmt: skip
    assert calls == expected


def test_learners_with_small_networks_are_not_recorded_after_the_first_step():
    lam = torch.ones(4, requires_grad=True)
    meta = EvoGradMetaOptimizer(
        nn.Linear(3, 2), 0.1, hyperparameters=lam, estimator="exact"
    )
    x = torch.randn(4, 3)
    kinds = []
    for _ in range(2):
        learner = meta.clone()
        learner.adapt((lam * learner(x).square().sum(1)).mean())
        kinds.append(type(learner(x)) is torch.Tensor)
        learner(x).sum().backward()
    assert kinds == [True, True]
    assert not meta.clone()._records
    assert (
        EvoGradMetaOptimizer(
            nn.Linear(3, 2), 0.1, hyperparameters=lam, estimator=Exact("forward")
        )
        .clone()
        ._records
    )


def test_derivatives_of_the_hypergradient_go_by_double_backward():
    lam = torch.linspace(0.5, 1, 4, dtype=torch.float64).requires_grad_()
    found = []
    for mode in ("forward", "reverse"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        x = torch.randn(4, 3, dtype=torch.float64)
        meta = EvoGradMetaOptimizer(
            model, 0.1, hyperparameters=lam, estimator=Exact(mode)
        )
        learner = meta.clone()
        learner.adapt((lam * learner(x).square().sum(1)).mean())
        outer = learner(x).exp().mean()
        (first,) = torch.autograd.grad(outer, lam, create_graph=True)
        found.append([first, *torch.autograd.grad(first.square().sum(), lam)])
    assert_equal(*found)


def test_an_operation_without_a_forward_derivative_falls_back_and_says_so_once(caplog):
    exact._LACKING.clear()  # other tests use the same function
    exact._say_once.cache_clear()
    model, x, y, *_ = problem("group norm")
    with caplog.at_level(logging.DEBUG, logger="l2l_evograd"):
        for _ in range(2):
            assert_equal(*both(*inner_loss(model, x, y)))
    (message,) = caplog.messages
    assert "double backward instead of forward over reverse: " in message
    assert "native_group_norm_backward" in message


def positive(w):
    return w @ w.mT + torch.eye(len(w), dtype=w.dtype)


# torch 2.15 computes wrong tangents of some of these without an error.
FUNCTIONS = {
    "solve": lambda w: torch.linalg.solve(positive(w), w),
    "inverse": lambda w: torch.linalg.inv(positive(w)),
    "determinant": lambda w: torch.linalg.det(positive(w)),
    "log determinant": lambda w: torch.logdet(positive(w)),
    "Cholesky": lambda w: torch.linalg.cholesky(positive(w)),
    "Cholesky solve": lambda w: torch.cholesky_solve(w, positive(w)),
    "eigenvalues": lambda w: torch.linalg.eigvalsh(positive(w)),
    "singular values": lambda w: torch.linalg.svdvals(w),
    "QR": lambda w: torch.linalg.qr(w)[1],
    "matrix exponential": lambda w: torch.linalg.matrix_exp(w),
    "products": lambda w: torch.cumprod(w, 0),
    "product": lambda w: torch.prod(w, 0),
    "sums": lambda w: torch.logcumsumexp(w, 0),
    "unpooling": lambda w: F.max_unpool1d(
        *F.max_pool1d(w[None], 2, return_indices=True), 2
    ),
    "scattered": lambda w: torch.zeros(4, 4, dtype=w.dtype).scatter_reduce(
        0, torch.zeros(4, 4, dtype=torch.int64), w, "prod", include_self=False
    ),
    "gathered": lambda w: torch.gather(w, 0, torch.tensor([[0, 1, 2, 0]])),
    "sorted": lambda w: torch.sort(w, 0).values.cumsum(0),
    "largest": lambda w: w.amax(0) + w.max() + w.norm(),
    "interpolated": lambda w: F.interpolate(w[None, None], scale_factor=2.0),
    "written": lambda w: w.clone().index_put_((torch.tensor([0]),), w[1]).tril_(),
    "spectrum": lambda w: torch.fft.rfft(w).abs(),
    "gates": lambda w: F.silu(w) * F.mish(w) + F.gelu(w) - F.hardswish(w),
    "losses": lambda w: (
        F.huber_loss(w, w.mT.sin()) + F.soft_margin_loss(w, w.mT.sign().detach())
    ),
    "grid": lambda w: F.grid_sample(
        w[None, None], torch.tanh(w.view(1, 2, 4, 2)), align_corners=False
    ),
    "distances": lambda w: torch.cdist(w, w.mT.cos()),
}


def skip_without_second_derivative(function):
    """Skip where this release of torch has none, as all but the newest ones."""
    w = torch.ones(4, 4, dtype=torch.float64, requires_grad=True)
    try:
        (slope,) = torch.autograd.grad(function(w).sum(), w, create_graph=True)
        torch.autograd.grad(slope.sum(), w, allow_unused=True)
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_torch_get_the_derivatives_of_double_backward(name):
    torch.manual_seed(0)
    w = torch.randn(4, 4, dtype=torch.float64).requires_grad_()
    before = torch.randn(4, 4, dtype=torch.float64).requires_grad_()
    behind = torch.randn((), dtype=torch.float64).requires_grad_()
    with Recording():
        found = FUNCTIONS[name](torch.sin(before * w))
        value = (behind * torch.tanh(found)).square().sum()
    if name in ("grid", "distances"):
        skip_without_second_derivative(FUNCTIONS[name])
    loss = InnerLoss(value, [w], hold=True)
    for params_too in (False, True):
        assert_equal(*both(loss, [w], params_too), tolerance=1e-9)


def test_inside_forward_mode_double_backward_is_used():
    model, x, y, *_ = problem("layer norm")
    loss, params = inner_loss(model, x, y)
    at, v = [p.detach() for p in params], [torch.ones_like(p) for p in params]
    wanted = range(len(loss.inputs))
    with torch.no_grad(), torch.autograd.forward_ad.dual_level():
        with pytest.raises(NoForwardDerivative, match="Nested forward mode"):
            forward_mixed(loss, at, v, wanted)
    assert not lacks_forward(loss)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode to be one of 'auto', 'forward', 'rev"):
        Exact("backward")


def after_bilevel_steps(mode):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).double()
    net = nn.Linear(1, 1).double()
    x, y = torch.randn(12, 6, dtype=torch.float64), torch.arange(12) % 3

    def inner(view):
        losses = F.cross_entropy(view(x), y, reduction="none")
        return (torch.sigmoid(net(losses.detach()[:, None]))[:, 0] * losses).mean()

    def outer(view):
        return F.cross_entropy(view(x), y)

    base = torch.optim.SGD(model.parameters(), lr=0.1)
    hyper = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        bilevel_step(model, inner, outer, base, hyper, estimator=Exact(mode))
    return [*model.parameters(), *net.parameters()]


def test_bilevel_steps_of_all_modes_are_the_same():
    expected = after_bilevel_steps("reverse")
    for mode in ("forward", "auto"):
        assert_equal(after_bilevel_steps(mode), expected)


def test_forward_mode_is_taken_again_after_a_call_inside_forward_mode(calls):
    parts = small_problem()
    options = {"lr": 0.1, "estimator": Exact("forward"), "check": "never"}
    with torch.autograd.forward_ad.dual_level():
        inside = hypergradient(*parts, **options).gradients
    assert calls == ["forward", "reverse"]
    outside = hypergradient(*parts, **options).gradients
    assert calls == ["forward", "reverse", "forward"]
    assert_equal([inside], [outside])
