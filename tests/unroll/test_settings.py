"""Windows, groups, the scale of the start, and what is refused in all modes."""

import numpy as np
import pytest
import torch
from torch import nn
from training_runs import inner, losses, outer, weights

from l2l_evograd.unroll import (
    RunGradients,
    forward_mode,
    greedy,
    reversible_sgd,
    run_sgd,
    unrolled_sgd,
)
from l2l_evograd.unroll.groups import Groups
from l2l_evograd.unroll.schedule import Windows, steps_per_window

pytestmark = pytest.mark.usefixtures("float64")

MODES = [unrolled_sgd, forward_mode, reversible_sgd, greedy]


@pytest.mark.parametrize("steps", [1, 7, 60])
def test_windows_are_those_of_the_definition(steps):
    groups = Groups(["a"], None)
    for count in range(1, steps + 1):
        windows = Windows("lr", torch.arange(count) * 1.0, steps, groups)
        places = [t * count // steps for t in range(steps)]
        assert [windows.window(t) for t in range(steps)] == places
        assert [windows.at(t) for t in range(steps)] == [[p] for p in places]
        assert [windows.first_step(w) for w in range(count)] == [
            places.index(w) for w in range(count)
        ]
        lengths = steps_per_window(count, steps)
        assert lengths == [places.count(w) for w in range(count)]
        assert max(lengths) - min(lengths) <= 1


def test_groups_name_weights_or_modules():
    names = ["0.weight", "0.bias", "10.weight", "10.bias"]
    assert Groups(names, None).of == [0, 0, 0, 0]
    assert Groups(names, ["10", "0"]).of == [1, 1, 0, 0]
    given = [["0.weight", "10.weight"], ["0.bias", "10.bias"]]
    assert Groups(names, given).of == [0, 1, 0, 1]
    for wrong, message in [
        (["0"], "none for 10.weight, 10.bias"),
        (["0", "1"], "got '1'; the weights are 0.weight"),
        ([["0", "10"], "0.bias"], "'0.bias' in groups 0 and 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            Groups(names, wrong)


def test_the_mean_over_a_window():
    result = RunGradients(
        gradients=None,
        schedule={
            "lr": torch.tensor([6.0, 6.0, 8.0]),
            "momentum": torch.tensor([[6.0, 12.0], [8.0, 4.0]]),
            "weight_decay": torch.tensor(20.0),
        },
        init={},
        params={},
        inner_losses=torch.zeros(10),
        outer_loss=torch.zeros(()),
        steps=10,
    )
    means = result.per_step()
    assert means["lr"].tolist() == [1.5, 2.0, 8 / 3]
    assert means["momentum"].tolist() == [[6 / 5, 12 / 5], [8 / 5, 4 / 5]]
    assert float(means["weight_decay"]) == 2.0


def test_sharing_trades_variance_for_bias_as_the_theorem_says():
    # Hypergradients with noise σ, independent, that drift by ε from step to step. The
    # mean over W has the error σ²/W + ε² (W² − 1)/12 for each of its steps.
    rng = torch.Generator().manual_seed(0)
    sigma, drift, steps, runs = 1.0, 0.05, 240, 2000
    mean = drift * torch.arange(steps)
    drawn = mean + sigma * torch.randn(runs, steps, generator=rng)
    for width in (1, 4, 12, 24, 60):
        shared = drawn.reshape(runs, -1, width).sum(2)
        result = RunGradients(
            params={},
            inner_losses=torch.zeros(1),
            outer_loss=torch.zeros(()),
            steps=steps,
            gradients=None,
            schedule={"lr": shared.T},
            init={},
        )
        means = result.per_step()["lr"].repeat_interleave(width, 0).T
        error = float((means - mean).square().mean())
        expected = sigma**2 / width + drift**2 * (width**2 - 1) / 12
        assert error == pytest.approx(expected, rel=0.02)


def test_a_number_of_any_kind():
    given = {"lr": torch.tensor(0.1), "steps": 5}
    expected = unrolled_sgd(losses(5), outer, weights(), momentum=0.5, **given)
    for momentum in (np.float32(0.5), np.float64(0.5)):
        got = unrolled_sgd(losses(5), outer, weights(), momentum=momentum, **given)
        assert torch.equal(got.schedule["lr"], expected.schedule["lr"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        (
            {"lr": -0.1},
            ValueError,
            "lr to be finite and at least 0, got -0.1; .* clamp",
        ),
        ({"lr": torch.tensor([0.1, -0.2])}, ValueError, "SignDescent does, or learn"),
        ({"lr": torch.tensor(float("nan"))}, ValueError, "lr to be finite"),
        ({"momentum": torch.tensor(1.1)}, ValueError, "momentum .* from 0 to 1"),
        (
            {"weight_decay": torch.tensor(-1e-9)},
            ValueError,
            "weight_decay to be finite",
        ),
        ({"lr": "0.1"}, TypeError, "lr to be a number, or a tensor .*, got str"),
        ({"lr": True}, TypeError, "lr to be a number, .* got bool"),
        ({"lr": torch.tensor([1])}, TypeError, "tensor of floats, got torch.int64"),
        ({"lr": torch.ones(4)}, ValueError, "1 to 3 windows, .* got 4"),
        ({"lr": torch.ones(0)}, ValueError, "1 to 3 windows, .* got 0"),
        ({"lr": torch.ones(1, 2)}, ValueError, "name the groups of its second"),
        (
            {"lr": torch.ones(1, 3), "groups": ["a", ["b", "c"]]},
            ValueError,
            r"\(N, 2\) for N windows and 2 groups, got \(1, 3\)",
        ),
        ({"lr": torch.ones(1, 1, 1)}, ValueError, r"got \(1, 1, 1\)"),
        ({"groups": ["a", "b"]}, ValueError, "in one of the groups, got none for c"),
        ({"steps": 0}, ValueError, "steps to be a whole number of at least 1"),
        ({"inner_loss": losses(2)}, ValueError, "for each of 3 steps, got 2"),
        (
            {"inner_loss": 3},
            TypeError,
            "a function or a sequence of functions, got int",
        ),
        ({"clip": 0.0}, ValueError, "clip to be positive"),
        ({"dampening": 0.5}, TypeError, "dampening to be True or False, got 0.5"),
        ({"params": 3}, TypeError, "params to be a dict of tensors or a module"),
        ({"init": torch.tensor(1.0)}, TypeError, "init to be {'scale': tensor}"),
        ({"init": {"scale": 1.0}}, TypeError, "tensor of floats, got 1.0"),
        ({"init": {"scale": torch.ones(2)}}, ValueError, r"shape \(1,\) for 1 groups"),
        ({"init": {"scale": torch.tensor(float("inf"))}}, ValueError, "to be finite"),
        ({"lr": 0.1}, ValueError, "nothing to differentiate .* give lr or momentum"),
        ({"outer_loss": lambda p, h: 1.0}, TypeError, "the outer loss .* got float"),
        (
            {"outer_loss": lambda p, h: torch.tensor(1.0)},
            ValueError,
            "the outer loss does not depend on the weights",
        ),
        (
            {"inner_loss": lambda p, h: p["a"].sum()},
            ValueError,
            "at step 0 does not use the weights b, c; take them out",
        ),
        (
            {"inner_loss": [*losses(2), lambda p, h: p["a"].sum() / 0.0]},
            ValueError,
            "the inner loss at step 2 to be finite, got -?inf; lower the learning rate",
        ),
        ({"inner_loss": lambda p, h: torch.ones(())}, ValueError, "not require grad"),
        (
            {"hyperparameters": torch.zeros(2)},
            ValueError,
            r"does not depend on 1 of the 1 hyperparameters: hyperparameter 0 \(2,\)",
        ),
    ],
)
def test_what_cannot_work_is_refused(mode, changed, kind, message):
    given = {
        "inner_loss": lambda p, lam: inner(p, None, torch.arange(5)),
        "outer_loss": lambda p, lam: outer(p, None),
        "params": weights(),
        "lr": torch.tensor([0.1]),
        "momentum": 0.5,
        "steps": 3,
    }
    with pytest.raises(kind, match=message):
        mode(**{**given, **changed})


@pytest.mark.parametrize("mode", MODES)
def test_a_diverging_run_names_the_step(mode):
    with pytest.raises(ValueError, match=r"(at|after) step \d+"):
        mode(
            losses(200),
            outer,
            weights(),
            lr=torch.tensor(50.0),
            momentum=0.9,
            weight_decay=10.0,
            steps=200,
        )


@pytest.mark.parametrize("mode", MODES)
def test_weights_without_use_have_a_gradient_of_0(mode):
    def loss(params, lam):
        return (params["a"].square()).sum()

    given = {"lr": torch.tensor(0.1), "momentum": 0.5, "steps": 4}
    params = {"a": torch.ones(2), "spare": torch.ones(3)}
    got = mode(loss, loss, params, **given, allow_unused=True)
    assert got.params["spare"].tolist() == [1, 1, 1]
    small = mode(loss, loss, {"a": torch.ones(2)}, **given)
    assert torch.allclose(got.schedule["lr"], small.schedule["lr"], rtol=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_a_loss_that_is_linear_in_the_weights(mode):
    def loss(params, lam):
        return params["a"].sum()

    got = mode(
        loss, loss, {"a": torch.ones(2)}, lr=torch.tensor(0.1), momentum=0.5, steps=2
    )
    # θ_2 = 1 − α (1 + 1.5), in each of two entries.
    assert float(got.schedule["lr"]) == pytest.approx(-5.0)


def test_a_fused_kernel_is_replaced():
    torch.manual_seed(0)
    net = nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True)
    x = torch.randn(3, 5, 4)

    def loss(view):
        return view(x).square().mean()

    given = {"lr": torch.tensor([0.1, 0.2]), "momentum": 0.5, "steps": 4}
    truth = unrolled_sgd(loss, loss, net, **given).schedule["lr"]
    for mode in (forward_mode, reversible_sgd):
        got = mode(loss, loss, net, **given).schedule["lr"]
        assert torch.allclose(got, truth, rtol=1e-8)


@pytest.mark.parametrize("mode", MODES)
def test_weights_of_no_dimension(mode):
    def bowl(params, lam):
        return (params["x"].sum() - 2).square()

    def last(params, lam):
        return params["x"].sum() ** 4

    given = {"lr": torch.tensor([0.1, 0.2]), "momentum": 0.5, "steps": 6}
    found = [
        mode(bowl, last, {"x": x}, **given).schedule["lr"]
        for x in (torch.tensor(1.0), torch.ones(1))
    ]
    assert torch.allclose(*found, rtol=1e-14)


@pytest.mark.parametrize("mode", [*MODES, run_sgd])
@pytest.mark.parametrize(
    ("params", "kind", "message"),
    [
        ({"a": torch.ones(2, dtype=torch.int64)}, TypeError, "got torch.int64 for 'a'"),
        ({"a": torch.ones(2) * 1j}, TypeError, "got torch.complex\\d+ for 'a'"),
        ({"a": 3.0}, TypeError, "got float for 'a'"),
        (nn.Embedding(3, 2, sparse=True), ValueError, "sparse ones for weight; make"),
    ],
)
def test_weights_of_another_kind_are_refused(mode, params, kind, message):
    def loss(given, lam=None):
        if isinstance(given, nn.Module):
            return given(torch.arange(2)).square().sum()
        return given["a"].abs().sum()

    with pytest.raises(kind, match=message):
        mode(loss, loss, params, lr=torch.tensor(0.1), momentum=0.5, steps=2)


@pytest.mark.parametrize("mode", [*MODES, run_sgd])
def test_a_loss_that_changes_the_weights_is_refused(mode):
    def loss(params, lam):
        with torch.no_grad():
            params["a"].clamp_(max=0.5)
        return params["a"].square().sum()

    with pytest.raises(RuntimeError, match="at step 0 changed the weights a in place"):
        mode(
            loss,
            lambda params, lam: params["a"].sum(),
            {"a": torch.ones(2)},
            lr=torch.tensor(0.1),
            momentum=0.5,
            steps=2,
        )
