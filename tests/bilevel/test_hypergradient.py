"""Hypergradients of a function: right, and nothing changed."""

import copy

import numpy as np
import pytest
import torch
from online import (
    XQ,
    X,
    Y,
    by_hand,
    network,
    outer,
    weight_net,
    weighted,
)
from torch.nn import functional as F

from l2l_evograd import EvoGrad, Exact, Guided, hypergradient

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("form", ["module", "dict"])
def test_both_forms_give_the_hypergradient_of_the_unrolled_step(form):
    model, hyper = network(), weight_net()
    inner = weighted(hyper)
    expected = by_hand(model, list(hyper.parameters()), inner, seed=3)[2]
    torch.manual_seed(3)
    if form == "module":
        result = hypergradient(inner, outer, model, hyper, lr=0.1, estimator="exact")
        got = result.gradients
    else:
        names = [n for n, _ in hyper.named_parameters()]

        def inner_of(params, lam):
            buffers = {n: b.clone() for n, b in model.named_buffers()}

            def net(x):
                return torch.func.functional_call(model, (params, buffers), (x,))

            losses = F.cross_entropy(net(X), Y, reduction="none")
            given = losses.detach()[:, None]
            weights = torch.func.functional_call(hyper, lam, (given,))[:, 0]
            return (weights * losses).mean()

        def outer_of(params, lam):
            buffers = {n: b.clone() for n, b in model.named_buffers()}
            return outer(
                lambda x: torch.func.functional_call(model, (params, buffers), (x,))
            )

        result = hypergradient(
            inner_of,
            outer_of,
            dict(model.named_parameters()),
            dict(hyper.named_parameters()),
            lr=0.1,
            estimator=Exact(),
        )
        assert list(result.gradients) == names
        got = list(result.gradients.values())
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize(
    ("update", "estimator"),
    [
        ("gradient", Exact()),
        ("gradient", Guided()),
        ("gradient", Guided(scheme="forward")),
        ("gradient", EvoGrad(3)),
        ("evolution", EvoGrad(3)),
    ],
)
def test_a_hypergradient_changes_nothing(update, estimator):
    model, hyper = network(), weight_net()
    model[0].bias.requires_grad_(False)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    before = copy.deepcopy(model.state_dict())
    modules = [sorted(vars(m)) for m in model.modules()]
    torch.manual_seed(3)
    hypergradient(
        weighted(hyper), outer, model, hyper, lr=0.1, update=update, estimator=estimator
    )
    after = torch.get_rng_state()
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())
    assert all(p.grad is None for p in hyper.parameters())
    assert not model[0].bias.requires_grad and model[0].weight.requires_grad
    assert modules == [sorted(vars(m)) for m in model.modules()]
    torch.manual_seed(3)
    model(X), model(XQ)
    assert torch.equal(after, torch.get_rng_state())


def test_several_steps_and_several_losses_and_direct_dependence():
    x = torch.tensor([0.3, -0.2])
    lam = torch.tensor([0.7, 0.4])

    def first(params, lam):
        return ((params["x"] - lam) ** 2).sum()

    def second(params, lam):
        return (torch.exp(lam[0]) * params["x"] ** 2).sum()

    def query(params, lam):
        return (params["x"] ** 2).sum() + (lam**2).sum()

    got = hypergradient(
        [first, second], query, {"x": x}, lam, lr=0.1, steps=2, estimator="exact"
    )
    lam = lam.clone().requires_grad_()
    after = x - 0.1 * 2 * (x - lam)
    after = after - 0.1 * 2 * torch.exp(lam[0]) * after
    expected = torch.autograd.grad((after**2).sum() + (lam**2).sum(), lam)[0]
    assert torch.allclose(got.gradients, expected, rtol=1e-12)
    assert torch.allclose(got.params["x"], after.detach(), rtol=1e-12)
    assert float(got.outer_loss) == pytest.approx(
        float(query({"x": after}, lam).detach())
    )
    assert float(got.inner_loss) == pytest.approx(0.52)


def test_a_hyperparameter_that_one_loss_does_not_use():
    x = torch.tensor([0.3, -0.2])
    used, spare = torch.tensor(0.7), torch.tensor(0.4)

    def inner(params, lam):
        return (lam[0] * params["x"] ** 2).sum()

    def query(params, lam):
        return (params["x"] ** 2).sum() + lam[1] ** 2

    problem = (inner, query, {"x": x}, [used, spare])
    with pytest.raises(
        ValueError, match=r"1 of the 2 hyperparameters: hyperparameter 1"
    ):
        hypergradient(*problem, lr=0.1)
    for estimator in ("exact", "guided", "evograd"):
        got = hypergradient(*problem, lr=0.1, estimator=estimator, allow_unused=True)
        assert float(got.gradients[1]) == pytest.approx(0.8)
    exact = hypergradient(*problem, lr=0.1, estimator="exact", allow_unused=True)
    after = x * (1 - 0.2 * 0.7)
    expected = (2 * after * -0.2 * x).sum()
    assert float(exact.gradients[0]) == pytest.approx(float(expected), rel=1e-12)


def test_a_tensor_among_both_weights_and_hyperparameters_is_refused():
    model = network()
    lam = model[1].weight
    with pytest.raises(
        ValueError, match=r"hyperparameter 0 \(8,\) is among the weights"
    ):
        hypergradient(
            lambda p, h: p["1.weight"].sum(),
            lambda p, h: p["1.weight"].sum(),
            dict(model.named_parameters()),
            lam,
            lr=0.1,
        )


def simple(**kwargs):
    settings = {
        "inner_loss": lambda p, lam: (lam * p["x"] ** 2).sum(),
        "outer_loss": lambda p, lam: (p["x"] ** 2).sum(),
        "params": {"x": torch.tensor([1.0, -0.5])},
        "hyperparameters": torch.ones(()),
        "lr": 0.1,
    }
    settings.update(kwargs)
    return hypergradient(**settings)


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"lr": None}, ValueError, "lr, the inner learning rate, .* got None"),
        ({"lr": -0.1}, ValueError, "lr to be positive and finite, got -0.1"),
        ({"steps": 0}, ValueError, "steps to be a whole number of at least 1, got 0"),
        ({"steps": 1.5}, ValueError, "steps to be a whole number .* got 1.5"),
        ({"inner_loss": []}, ValueError, "one inner loss for each of 1 steps, got 0"),
        (
            {"inner_loss": [lambda p, h: p["x"].sum()] * 2, "steps": 3},
            ValueError,
            "one inner loss for each of 3 steps, got 2",
        ),
        ({"params": {}}, TypeError, "params to be a dict of tensors or a module, got"),
        ({"params": 3}, TypeError, "use dict\\(model.named_parameters\\(\\)\\)"),
        ({"hyperparameters": 0.5}, TypeError, "a sequence or a dict of tensors, got f"),
        ({"hyperparameters": [0.5]}, TypeError, "to be a tensor, got float"),
        ({"hyperparameters": []}, ValueError, "at least one hyperparameter, got none"),
        (
            {"inner_loss": lambda p, h: (p["x"] ** 2).sum()},
            ValueError,
            r"does not depend on 1 of the 1 hyperparameters: hyperparameter 0 \(\)",
        ),
        (
            {"inner_loss": lambda p, h: h * p["x"] ** 2},
            ValueError,
            r"inner loss to be a scalar, got a tensor of shape \(2,\)",
        ),
        (
            {"outer_loss": lambda p, h: p["x"].sum() / 0.0},
            ValueError,
            "the outer loss to be finite, got inf",
        ),
        ({"outer_loss": lambda p, h: 1.0}, TypeError, "the outer loss .* got float"),
        ({"estimator": "newton"}, ValueError, "estimator to be one of 'evograd'"),
        ({"update": "newton"}, ValueError, "update to be one of 'gradient'"),
    ],
)
def test_what_cannot_work_is_refused(settings, kind, message):
    with pytest.raises(kind, match=message):
        simple(**settings)


def test_each_loss_is_called_once_for_each_step():
    calls = []

    def inner(params, lam):
        calls.append("inner")
        return (lam * params["x"] ** 2).sum()

    def query(params, lam):
        calls.append("outer")
        return (params["x"] ** 2).sum()

    for settings in (
        {"estimator": "exact"},
        {"estimator": "exact", "memory": "recompute"},
        {"estimator": "guided"},
        {"estimator": "evograd"},
        {"update": "evolution"},
    ):
        calls.clear()
        simple(inner_loss=inner, outer_loss=query, steps=3, check="always", **settings)
        assert calls == ["inner"] * 3 + ["outer"]


@pytest.mark.parametrize("lr", [np.float32(0.5), torch.tensor(0.5), torch.ones(1) / 2])
def test_a_number_of_any_kind_is_a_learning_rate(lr):
    assert torch.equal(simple(lr=lr).gradients, simple(lr=0.5).gradients)


def test_a_learned_rate_belongs_to_the_meta_optimizer():
    with pytest.raises(ValueError, match="EvoGradMetaOptimizer.* for learned rates"):
        simple(lr=torch.tensor(0.1, requires_grad=True))


def test_perturbations_follow_from_the_random_state_which_stays():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, again = (simple(estimator="evograd").gradients for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(state, torch.get_rng_state())
    others = []
    for _ in range(8):
        torch.rand(1)
        others.append(simple(estimator="evograd").gradients)
    assert not all(torch.equal(first, other) for other in others)
