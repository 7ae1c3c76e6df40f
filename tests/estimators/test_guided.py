import pytest
import torch
from estimated import estimate, problem

from l2l_evograd import Exact, Guided


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


@pytest.mark.parametrize("h", [0, -0.1, float("nan"), float("inf"), "0.1"])
def test_a_step_that_is_no_step_is_refused(h):
    with pytest.raises(ValueError, match="expected h to be positive and finite, got"):
        Guided(h=h)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ValueError, match="scheme to be one of 'central', 'forward'"):
        Guided(scheme="backward")


def test_central_differences_are_exact_where_the_loss_is_quadratic():
    inner, outer, theta, lam = problem()

    def predict(params, x):
        return x @ params["w1"] + params["b1"]

    x, y = torch.randn(2, 10, 4, dtype=torch.float64)
    y = torch.cat([y, y], dim=1)

    def quadratic(params, lam):
        return (torch.sigmoid(lam) * (predict(params, x) - y).square().sum(1)).mean()

    def at_the_end(params, lam):
        return predict(params, x).square().mean()

    parts = (quadratic, at_the_end, {n: theta[n] for n in ("w1", "b1")}, lam)
    exact = estimate(parts, Exact())
    for h in (1e-2, 1.0):
        assert torch.allclose(estimate(parts, Guided(h=h)), exact, rtol=1e-9)


def test_only_forward_differences_begin_from_what_is_known():
    assert Guided(scheme="forward").uses_known
    assert not Guided().uses_known and not Guided().random and not Guided().exact
