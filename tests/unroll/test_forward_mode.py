"""Forward mode: how many products it takes, its memory, other optimizers, refusals."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from training_runs import (
    distance,
    lambdas,
    losses,
    outer,
    peak_bytes,
    weights,
)

from l2l_evograd.unroll import forward_mode, forward_mode_of, unrolled_sgd
from l2l_evograd.unroll.products import Products

pytestmark = pytest.mark.usefixtures("float64")


def products_of(monkeypatch, **given):
    """Return how many Hessian-vector products a call of forward mode takes."""
    counts = []
    call = Products.__call__

    def counting(self, tangents, count, inside):
        counts.append(count)
        for columns, products in call(self, tangents, count, inside):
            assert all(len(p) == columns.stop - columns.start for p in products)
            yield columns, products

    monkeypatch.setattr(Products, "__call__", counting)
    forward_mode(losses(given["steps"]), outer, weights(), **given)
    return sum(counts)


@pytest.mark.parametrize("windows", [1, 2, 5, 10, 30])
def test_windows_not_yet_reached_cost_nothing(monkeypatch, windows):
    given = {"lr": torch.full((windows,), 0.1), "momentum": 0.5, "steps": 30}
    # In the first step of a window its tangent is still 0.
    expected = 30 * (windows + 1) // 2 - windows
    assert products_of(monkeypatch, **given) == expected
    given["momentum"] = torch.full((windows,), 0.5)
    assert products_of(monkeypatch, **given) == 2 * expected
    given["weight_decay"] = torch.full((windows,), 0.01)
    assert products_of(monkeypatch, **given) == 3 * expected


def test_a_scalar_inside_the_loss_or_the_start_takes_one_product_each_step(
    monkeypatch,
):
    given = {"hyperparameters": lambdas(), "lr": 0.1, "steps": 7}
    assert products_of(monkeypatch, **given) == 7 * 43
    given = {"init": {"scale": torch.tensor(0.1)}, "lr": 0.1, "steps": 7}
    assert products_of(monkeypatch, **given) == 7


@pytest.mark.parametrize("chunk_size", [1, 2, 5, 100])
def test_products_can_be_taken_in_chunks(chunk_size):
    given = {
        "lr": torch.full((4,), 0.3),
        "momentum": torch.full((2,), 0.5),
        "init": {"scale": torch.tensor(0.1)},
        "steps": 12,
    }
    problem = losses(12), outer, weights(), lambdas()
    truth = unrolled_sgd(*problem, **given)
    assert distance(forward_mode(*problem, **given, chunk_size=chunk_size), truth) < (
        1e-12
    )


def test_hyperparameters_of_several_tensors_some_unused():
    lam = {"one": torch.tensor([[0.1, -0.2]]), "spare": torch.zeros(3)}
    lam["two"] = torch.tensor(0.3)

    def loss(params, lam):
        x = params["x"]
        return (x - lam["one"].sum()).square().sum() * lam["two"].exp()

    def last(params, lam):
        return params["x"].square().sum() + lam["one"].square().sum()

    given = {"lr": torch.tensor(0.1), "steps": 5, "allow_unused": True}
    problem = loss, last, {"x": torch.tensor([1.0, -0.5])}, lam
    truth = unrolled_sgd(*problem, **given)
    for chunk_size in (None, 1, 4):
        got = forward_mode(*problem, **given, chunk_size=chunk_size)
        assert got.gradients["spare"].tolist() == [0, 0, 0]
        assert distance(got, truth) < 1e-12
    with pytest.raises(ValueError, match=r"1 of the 3 hyperparameters: hyperparameter"):
        forward_mode(*problem, lr=0.1, steps=5)


def test_memory_does_not_grow_with_the_number_of_steps():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(100, 100), nn.Tanh(), nn.Linear(100, 2)).float()
    x, y = torch.randn(4, 100, dtype=torch.float32), torch.tensor([0, 1, 0, 1])
    count = sum(p.numel() for p in net.parameters())

    def loss(view):
        return F.cross_entropy(view(x), y)

    def peak(steps, windows):
        given = {"lr": torch.full((windows,), 0.01), "momentum": 0.5, "steps": steps}
        return peak_bytes(lambda: forward_mode(loss, loss, net, **given, chunk_size=1))

    short = peak(10, 4)
    assert abs(peak(60, 4) - short) < 20_000
    # Two numbers for each weight and each scalar.
    assert peak(10, 8) - short == pytest.approx(2 * 4 * count * 4, rel=0.02)


def adam(weight, gradient, state, values, step):
    m = values["beta1"] * state["m"] + (1 - values["beta1"]) * gradient
    v = values["beta2"] * state["v"] + (1 - values["beta2"]) * gradient**2
    first = m / (1 - values["beta1"] ** (step + 1))
    second = v / (1 - values["beta2"] ** (step + 1))
    return weight - values["lr"] * first / (second.sqrt() + 1e-8), {"m": m, "v": v}


def adam_unrolled(steps, lam, lr, beta1, beta2):
    leaves = [t.clone().requires_grad_() for t in (lr, beta1, beta2, *lam.values())]
    a, b, c = leaves[:3]
    lam = dict(zip(lam, leaves[3:], strict=True))
    params = {name: w.requires_grad_() for name, w in weights().items()}
    states = {n: {k: torch.zeros_like(w) for k in "mv"} for n, w in params.items()}
    for t, loss in enumerate(losses(steps)):
        grads = torch.autograd.grad(
            loss(params, lam), list(params.values()), create_graph=True
        )
        values = {"lr": a[t * len(a) // steps], "beta1": b[0], "beta2": c[0]}
        for name, g in zip(list(params), grads, strict=True):
            new = adam(params[name], g, states[name], values, t)
            params[name], states[name] = new
    found = torch.autograd.grad(outer(params, lam), leaves)
    return params, torch.cat([g.flatten() for g in found])


def test_adam_through_its_own_step():
    schedule = {
        "lr": torch.tensor([0.02, 0.05, 0.01]),
        "beta1": torch.tensor([0.9]),
        "beta2": torch.tensor([0.98]),
    }
    lam = lambdas()
    params, expected = adam_unrolled(40, lam, *schedule.values())
    for chunk_size in (None, 1, 7):
        got = forward_mode_of(
            adam,
            losses(40),
            outer,
            weights(),
            lam,
            schedule=schedule,
            state=("m", "v"),
            steps=40,
            chunk_size=chunk_size,
        )
        found = [*got.schedule.values(), *got.gradients.values()]
        found = torch.cat([g.flatten() for g in found])
        assert float((found - expected).norm() / expected.norm()) < 1e-10
        for name, param in params.items():
            assert torch.allclose(got.params[name], param.detach(), rtol=1e-12)


def test_sgd_as_a_rule_is_sgd():
    def sgd(weight, gradient, state, values, step):
        v = values["momentum"] * state["v"] + gradient + values["decay"] * weight
        return weight - values["lr"] * v, {"v": v}

    lr, momentum = torch.tensor([[0.3, 0.1], [0.2, 0.4]]), torch.tensor([0.5, 0.8])
    given = {"groups": ["a", ["b", "c"]], "init": {"scale": torch.tensor([0.1, 0.2])}}
    schedule = {"lr": lr, "momentum": momentum, "decay": torch.tensor(0.01)}
    got = forward_mode_of(
        sgd,
        losses(15),
        outer,
        weights(),
        schedule=schedule,
        state=("v",),
        steps=15,
        **given,
    )
    truth = unrolled_sgd(
        losses(15),
        outer,
        weights(),
        lr=lr,
        momentum=momentum,
        weight_decay=torch.tensor(0.01),
        steps=15,
        **given,
    )
    assert list(got.schedule) == ["lr", "momentum", "decay"]
    assert distance(got, truth) < 1e-12


def test_too_many_hyperparameters_are_sent_to_reversible_sgd():
    given = {"lr": torch.full((30,), 0.1), "steps": 30, "limit": 72}
    with pytest.raises(
        ValueError,
        match=r"at most limit=72 hyperparameters, got 73; use reversible_sgd",
    ):
        forward_mode(losses(30), outer, weights(), lambdas(), **given)
    given["limit"] = 73
    forward_mode(losses(30), outer, weights(), lambdas(), **given)
