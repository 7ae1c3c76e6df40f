"""Losses that could give a wrong number without a word: a warning or an error."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from training_runs import losses, outer, weights

from l2l_evograd.unroll import (
    Unreversed,
    forward_mode,
    forward_mode_of,
    greedy,
    reversible_sgd,
    run_sgd,
    unrolled_sgd,
)

pytestmark = pytest.mark.usefixtures("float64")

TWICE = [unrolled_sgd, forward_mode, reversible_sgd]
MODES = [*TWICE, greedy, run_sgd]

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randint(2, (12,), generator=torch.Generator().manual_seed(1))


def given(**changed):
    rate = torch.tensor([0.1, 0.2])
    return {"lr": rate, "momentum": 0.5, "steps": 6, **changed}


def loss(view):
    return F.cross_entropy(view(X), Y)


class Reversal(torch.autograd.Function):
    """Domain-adversarial training: the gradient of a part is turned round."""

    @staticmethod
    def forward(ctx, x, strength):
        ctx.save_for_backward(strength)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        (strength,) = ctx.saved_tensors
        return -strength * grad, None


def hooked(params, lam):
    hidden = torch.tanh(X @ params["a"].T)
    hidden.register_hook(lambda grad: grad.clamp(-0.01, 0.01))
    return F.cross_entropy(hidden @ params["c"].T, Y)


def turned(params, lam):
    hidden = torch.tanh(X @ params["a"].T)
    return F.cross_entropy(Reversal.apply(hidden, lam) @ params["c"].T, Y)


def two_layers():
    rng = torch.Generator().manual_seed(2)
    return {
        "a": torch.randn(5, 4, generator=rng, dtype=torch.float64),
        "c": torch.randn(2, 5, generator=rng, dtype=torch.float64),
    }


@pytest.mark.parametrize("mode", TWICE)
def test_a_gradient_that_a_hook_changes_is_warned_of(mode):
    with pytest.warns(UserWarning, match="at step 0 are not symmetric"):
        mode(hooked, lambda p, lam: p["c"].square().sum(), two_layers(), **given())


@pytest.mark.parametrize("mode", TWICE)
def test_lambda_in_a_custom_backward_pass_is_warned_of(mode):
    with pytest.warns(UserWarning, match="a custom backward pass"):
        mode(
            turned,
            lambda p, lam: p["a"].square().sum(),
            two_layers(),
            torch.tensor(0.5),
            allow_unused=True,
            **given(),
        )


@pytest.mark.parametrize("mode", TWICE)
@pytest.mark.parametrize(
    "layer",
    [
        lambda: parametrizations.weight_norm(nn.Linear(4, 4)),
        lambda: nn.Sequential(
            nn.Embedding(3, 4, scale_grad_by_freq=True), nn.Flatten(0, 1)
        ),
    ],
    ids=["weight norm", "embedding"],
)
def test_layers_whose_second_derivative_torch_has_wrong_are_warned_of(mode, layer):
    torch.manual_seed(0)
    net = nn.Sequential(layer(), nn.Tanh(), nn.Linear(4, 2))
    x = (
        X
        if isinstance(net[0], nn.Linear)
        else torch.tensor([[0, 0, 0, 1], [1, 0, 2, 0]])
    )

    def own(view):
        found = view(x)
        return F.cross_entropy(found, torch.arange(len(found)) % 2)

    with pytest.warns(UserWarning, match="not symmetric"):
        mode(own, own, net, **given())


@pytest.mark.parametrize("mode", TWICE)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_ordinary_layers_are_not_warned_of(mode, dtype):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.LayerNorm(36),
        nn.Dropout(0.2),
        nn.Linear(36, 2),
    ).to(dtype)
    images = torch.randn(12, 1, 8, 8, dtype=dtype)
    lam = torch.zeros(12, dtype=dtype, requires_grad=True)

    def own(view):
        each = F.cross_entropy(view(images), Y, reduction="none")
        return (each * lam.exp()).mean()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mode(own, own, net, [lam], **given())


def test_autocast_is_not_warned_of():
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).float()

    def own(view):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return F.cross_entropy(view(X.float()), Y)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for mode in TWICE:
            mode(own, own, net, **given())


def test_a_network_that_has_learned_its_data_is_not_warned_of():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2)).float()
    x = 20 * X.float()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = unrolled_sgd(
            lambda view: F.cross_entropy(view(x), Y),
            lambda view: F.cross_entropy(view(x), Y),
            net,
            lr=torch.full((4,), 0.05),
            momentum=0.9,
            steps=300,
        )
    assert float(got.outer_loss) < 1e-4


@pytest.mark.parametrize("mode", MODES)
def test_hooks_of_parameters_are_refused(mode):
    net = nn.Linear(4, 2)
    net.weight.register_hook(lambda grad: grad.clamp(-0.1, 0.1))
    with pytest.raises(ValueError, match="weight have gradient hooks"):
        mode(loss, loss, net, **given())


@pytest.mark.parametrize("mode", MODES)
def test_hooks_of_lambda_are_refused(mode):
    lam = torch.zeros(12, requires_grad=True)
    lam.register_hook(lambda grad: 2 * grad)

    def own(view):
        return (F.cross_entropy(view(X), Y, reduction="none") * lam.exp()).mean()

    with pytest.raises(ValueError, match="has a gradient hook"):
        mode(own, loss, nn.Linear(4, 2), [lam], **given())


def test_noise_that_a_lambda_of_0_hides_is_noticed():
    rng = np.random.default_rng(0)

    def noisy(params, lam):
        noise = torch.from_numpy(rng.standard_normal(2))
        return (params["a"] - 1).square().sum() + lam * (params["a"] * noise).sum()

    def last(params, lam):
        return params["a"].square().sum()

    start = {"a": torch.zeros(2)}
    unrolled_sgd(noisy, last, start, torch.tensor(0.0), **given())
    with pytest.raises(Unreversed, match="with respect to the hyperparameters .* 5 on"):
        reversible_sgd(noisy, last, start, torch.tensor(0.0), **given())


def test_a_momentum_near_1_gets_a_finer_grid():
    for beta in (0.99, 0.999, 0.003):
        rate = torch.tensor([0.05, 0.1])
        settings = {"lr": rate, "momentum": torch.tensor(beta), "steps": 60}
        near = unrolled_sgd(losses(60), outer, weights(), **settings)
        got = reversible_sgd(losses(60), outer, weights(), **settings)
        for name, value in near.schedule.items():
            assert torch.allclose(got.schedule[name], value, rtol=0.05)
    with pytest.raises(ValueError, match="nearest to 256/256 = 1"):
        reversible_sgd(
            losses(60),
            outer,
            weights(),
            denominator=256,
            **{**settings, "momentum": 0.999},
        )
    # A momentum of 1 itself is what it is.
    settings["momentum"] = 1.0
    reversible_sgd(losses(60), outer, weights(), **settings)


def test_weights_of_several_precisions():
    x = X.float()

    def own(params, lam):
        return (x @ params["b"]).square().mean() + 0.0 * params["a"].float().sum()

    def last(params, lam):
        return 1e4 * params["b"].square().sum()

    start = {
        "a": torch.ones(2, dtype=torch.float16),
        "b": torch.full((4,), 10.0, dtype=torch.float32),
    }
    truth = unrolled_sgd(own, last, start, **given())
    got = forward_mode(own, last, start, **given())
    assert torch.allclose(got.schedule["lr"], truth.schedule["lr"], rtol=1e-5)


def test_weights_of_no_dimension_keep_their_precision():
    seen = []

    def own(params, lam):
        seen.append(params["a"].dtype)
        return (params["a"] - 2).square()

    for mode in MODES:
        mode(own, own, {"a": torch.tensor(1.0, dtype=torch.float32)}, **given())
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize("mode", MODES)
def test_groups_that_nothing_uses_are_refused(mode):
    with pytest.raises(ValueError, match=r"lr or .* of shape \(N, 2\)"):
        mode(
            losses(6),
            outer,
            weights(),
            **given(groups=["a", ["b", "c"]]),
        )


def test_a_rule_that_writes_to_its_arguments_is_refused():
    def rule(weight, gradient, state, values, step):
        return weight.sub_(values["lr"] * gradient), {}

    with pytest.raises(RuntimeError, match="changed one of its arguments in place"):
        forward_mode_of(
            rule,
            losses(3),
            outer,
            weights(),
            schedule={"lr": torch.tensor([0.1])},
            steps=3,
        )


@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_the_chunk_size_is_a_whole_number(size):
    with pytest.raises(ValueError, match="chunk_size to be a whole number"):
        forward_mode(losses(6), outer, weights(), chunk_size=size, **given())


def test_a_diverging_network_is_not_warned_of():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2)
    ).float()
    x = X.float()

    def own(view):
        return F.cross_entropy(view(x), Y)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rate in (3.0, 10.0, 30.0):
            got = unrolled_sgd(
                own, own, net, lr=torch.full((4,), rate), momentum=0.9, steps=40
            )
            assert float(got.outer_loss) > 0.6


@pytest.mark.parametrize("mode", [*TWICE, greedy])
def test_the_work_grows_with_the_steps_and_not_faster(mode):
    passes = [0]

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, grad):
            passes[0] += 1
            return grad.clone()

    def own(params, lam):
        each = F.cross_entropy(X @ Counted.apply(params["a"]).T, Y, reduction="none")
        return (each * lam.exp()).mean()

    def last(params, lam):
        return F.cross_entropy(X @ params["a"].T, Y)

    counts = []
    for steps in (16, 64):
        passes[0] = 0
        start = {"a": torch.zeros(2, 4)}
        chunk = {"chunk_size": 1} if mode is forward_mode else {}
        lam = torch.zeros(12)
        mode(own, last, start, lam, lr=0.1, momentum=0.5, steps=steps, **chunk)
        counts.append(passes[0])
    assert counts[1] <= 4 * counts[0]


@pytest.mark.parametrize(
    ("rule", "kind", "message"),
    [
        (lambda w, g, s, v, t: w - g, TypeError, "the new weight and a dict .* with m"),
        (
            lambda w, g, s, v, t: (w - g, {}),
            TypeError,
            "a dict of the new state with m",
        ),
        (
            lambda w, g, s, v, t: (
                w - v["lr"] * g / (s["m"].sqrt() + 1e-8 + g**2),
                {"m": s["m"] + g**2},
            ),
            ValueError,
            "no derivative where it was used",
        ),
    ],
)
def test_rules_that_cannot_be_differentiated_are_refused(rule, kind, message):
    def own(params, lam):
        return (params["a"][:1] + 0 * params["a"].sum() - 1).square().sum()

    with pytest.raises(kind, match=message):
        forward_mode_of(
            rule,
            own,
            own,
            {"a": torch.zeros(2)},
            schedule={"lr": torch.tensor([0.1])},
            state=["m"],
            steps=3,
        )
