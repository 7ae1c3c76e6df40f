import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from l2l_evograd import EvoGrad, Exact, Guided, hypergradient
from l2l_evograd.estimators import resolve_estimator


def problem(dtype=torch.float64, activation=nn.Softplus, seed=0):
    """λ = weights of ten samples of a small network with a smooth activation."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    shapes = {"w1": (4, 8), "b1": (8,), "w2": (8, 3)}
    theta = {name: normal(*shape) for name, shape in shapes.items()}
    lam = normal(10)
    x, xv = normal(10, 4), normal(12, 4)
    y, yv = normal(10, 3), normal(12, 3)
    act = activation()

    def predict(params, inputs):
        return act(inputs @ params["w1"] + params["b1"]) @ params["w2"]

    def inner(params, lam):
        errors = ((predict(params, x) - y) ** 2).mean(-1)
        return (torch.sigmoid(lam) * errors).mean()

    def outer(params, lam):
        return ((predict(params, xv) - yv) ** 2).mean()

    return inner, outer, theta, lam


def estimate(parts, estimator, lr=0.1, **kwargs):
    return hypergradient(*parts, lr=lr, estimator=estimator, **kwargs).gradients


def by_hand(parts, lr, steps):
    inner, outer, theta, lam = parts
    params = {name: t.detach().requires_grad_() for name, t in theta.items()}
    lam = lam.detach().requires_grad_()
    for _ in range(steps):
        grads = torch.autograd.grad(
            inner(params, lam), list(params.values()), create_graph=True
        )
        params = {
            name: t - lr * g for (name, t), g in zip(params.items(), grads, strict=True)
        }
    return torch.autograd.grad(outer(params, lam), lam)[0]


@pytest.mark.parametrize("activation", [nn.Softplus, nn.ReLU])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_exact_equals_differentiating_through_the_unrolled_steps(activation, steps):
    parts = problem(activation=activation)
    got = estimate(parts, Exact(), steps=steps)
    assert torch.allclose(got, by_hand(parts, 0.1, steps), rtol=1e-8, atol=1e-14)


def test_exact_equals_a_finite_difference_of_the_outer_loss():
    inner, outer, theta, lam = problem()
    got = estimate((inner, outer, theta, lam), Exact())
    step = 1e-5
    for position in (0, 4, 9):
        values = []
        for sign in (1, -1):
            moved = lam.clone()
            moved[position] += sign * step
            values.append(hypergradient(inner, outer, theta, moved, lr=0.1).outer_loss)
        slope = (values[0] - values[1]) / (2 * step)
        assert float(got[position]) == pytest.approx(float(slope), rel=1e-6, abs=1e-11)


@pytest.mark.parametrize("scheme", ["central", "forward"])
def test_guided_is_close_to_exact_in_single_precision(scheme):
    parts = problem(torch.float32)
    exact = estimate(parts, Exact())
    # Forward differences have an error of order h instead of h².
    h = 1e-2 if scheme == "central" else 3e-4
    got = estimate(parts, Guided(h=h, scheme=scheme))
    assert float((got - exact).norm() / exact.norm()) <= 1e-3


def test_the_error_of_central_differences_falls_with_the_square_of_h():
    parts = problem()
    exact = estimate(parts, Exact())

    def error(h):
        return float((estimate(parts, Guided(h=h)) - exact).norm())

    assert error(0.02) / error(0.01) == pytest.approx(4, rel=0.02)
    assert error(0.01) / error(0.005) == pytest.approx(4, rel=0.02)


def test_the_error_of_forward_differences_falls_with_h():
    parts = problem()
    exact = estimate(parts, Exact())

    def error(h):
        return float((estimate(parts, Guided(h=h, scheme="forward")) - exact).norm())

    assert error(2e-4) / error(1e-4) == pytest.approx(2, rel=0.02)


def test_a_cotangent_of_zero_gives_a_hypergradient_of_zero():
    inner, _, theta, lam = problem()

    def flat(params, lam):
        return 0.0 * params["w1"].sum()

    for estimator in (Guided(), Guided(scheme="forward"), Exact(), EvoGrad()):
        got = hypergradient(inner, flat, theta, lam, lr=0.1, estimator=estimator)
        assert torch.equal(got.gradients, torch.zeros(10, dtype=torch.float64))


# 400 draws: enough that a bias of a fifth of a standard deviation of one draw would
# show at 4 standard errors, and fixed before looking.
DRAWS = 400


@pytest.mark.parametrize("update", ["gradient", "evolution"])
@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
@pytest.mark.parametrize("sampling", ["plain", "antithetic", "orthogonal"])
def test_the_mean_of_many_draws_agrees_with_exact(update, noise, sampling):
    parts = problem()
    estimator = EvoGrad(4, 1e-4, 0.05, noise, sampling)
    lr = 0.1 if update == "gradient" else estimator.learning_rate
    exact = estimate(parts, Exact(), lr=lr)
    generator = torch.Generator().manual_seed(17)
    draws = torch.stack(
        [
            estimate(parts, estimator, lr=lr, update=update, generator=generator)
            for _ in range(DRAWS)
        ]
    )
    if update == "evolution":
        # Algorithm 1 takes its cotangent at θ*, not at θ − η∇ℓ: both are within
        # O(σ) of θ, where the direct part of the gradient is 0.
        assert estimator.learning_rate < 1e-6
    error = draws.std(0) / math.sqrt(DRAWS)
    assert bool(((draws.mean(0) - exact).abs() <= 4 * error).all())
    assert float(cosine_similarity(draws.mean(0), exact, dim=0)) > 0.9


def test_the_settings_of_the_paper_stand_for_a_learning_rate_of_1e_5():
    assert EvoGrad().learning_rate == pytest.approx(1e-5)
    assert EvoGrad(sampling="antithetic").learning_rate == pytest.approx(2e-5)


def test_names_mean_the_estimators_with_their_defaults():
    assert resolve_estimator("guided", "gradient") == Guided()
    assert resolve_estimator("exact", "gradient") == Exact()
    assert resolve_estimator("evograd", "evolution") == EvoGrad(2, 1e-3, 0.05)
    assert resolve_estimator(None, "gradient") == Guided()
    assert resolve_estimator(None, "evolution") == EvoGrad()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_model_candidates": 0}, r"\(K\) to be a whole number of at least 2, got 0"),
        ({"n_model_candidates": 2.5}, "whole number of at least 2, got 2.5"),
        ({"n_model_candidates": True}, "whole number of at least 2, got True"),
        ({"n_model_candidates": 1}, "single candidate .* exactly 0; use at least 2"),
        ({"sigma": 0.0}, "sigma to be positive and finite, got 0.0"),
        ({"sigma": float("nan")}, "sigma to be positive and finite, got nan"),
        ({"temperature": -1.0}, "temperature to be positive and finite, got -1.0"),
        ({"temperature": float("inf")}, "temperature to be positive .* got inf"),
        ({"noise": "uniform"}, "noise to be one of 'rademacher', 'gaussian', got"),
        ({"sampling": "sobol"}, "sampling to be one of 'plain', .* got 'sobol'"),
        (
            {"n_model_candidates": 3, "sampling": "antithetic"},
            "expected an even n_model_candidates, got 3",
        ),
    ],
)
def test_a_population_that_cannot_work_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EvoGrad(**settings)


@pytest.mark.parametrize("h", [0, -0.1, float("nan"), float("inf"), "0.1"])
def test_a_step_that_is_no_step_is_refused(h):
    with pytest.raises(ValueError, match="expected h to be positive and finite, got"):
        Guided(h=h)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ValueError, match="scheme to be one of 'central', 'forward'"):
        Guided(scheme="backward")


def test_unknown_estimators_and_updates_are_refused():
    with pytest.raises(ValueError, match="estimator to be one of .* got 'adam'"):
        resolve_estimator("adam", "gradient")
    with pytest.raises(TypeError, match=r"EvoGrad\(...\), Guided\(...\), Exact\(\)"):
        resolve_estimator(3, "gradient")
    with pytest.raises(ValueError, match="update to be one of 'gradient', 'evolution'"):
        resolve_estimator(None, "sgd")
    with pytest.raises(ValueError, match="takes a population: .* got Guided"):
        resolve_estimator("guided", "evolution")
