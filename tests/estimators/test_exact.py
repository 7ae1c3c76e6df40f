import pytest
import torch
from estimated import by_hand, estimate, problem
from stepping import Problem
from torch import nn

from l2l_evograd import Exact, hypergradient
from l2l_evograd.estimators.exact import exact_mixed
from l2l_evograd.replay.inner_loss import InnerLoss, Unrepeatable, digest
from l2l_evograd.replay.tensor import Recording


@pytest.mark.parametrize("activation", [nn.Softplus, nn.ReLU])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_exact_equals_differentiating_through_the_unrolled_steps(activation, steps):
    parts = problem(activation=activation)
    for memory in ("graph", "recompute"):
        got = estimate(parts, Exact(), steps=steps, memory=memory)
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


@pytest.mark.usefixtures("float64")
def test_mixed_derivatives_are_those_of_the_directional_derivative():
    problem = Problem()
    with Recording():
        value = problem.inner(problem.params, problem.body(problem.x), problem.lam)
    loss = InnerLoss(value, problem.params, hold=True)
    v = [torch.randn_like(p) for p in problem.params]
    slopes = torch.autograd.grad(value, problem.params, create_graph=True)
    derivative = sum((a * s).sum() for a, s in zip(v, slopes, strict=True))
    expected = torch.autograd.grad(
        derivative, [*problem.params, *loss.inputs], allow_unused=True
    )
    before = [p.detach() for p in problem.params]
    positions = list(range(len(loss.inputs)))
    with torch.no_grad():  # as in backward()
        curvature, mixed = exact_mixed(loss, before, v, positions, True)
    for got, want in zip([*curvature, *mixed], expected, strict=True):
        want = torch.zeros_like(got) if want is None else want
        assert torch.allclose(got, want, rtol=1e-10, atol=1e-14)
    with torch.no_grad():
        nothing, some = exact_mixed(loss, before, v, positions[:1])
    assert nothing == [] and torch.allclose(some[0], mixed[0], rtol=1e-12)
    found = [s.detach() for s in slopes]
    with torch.no_grad():
        exact_mixed(loss, before, v, [], True, slopes_before=digest(found))
    with torch.no_grad(), pytest.raises(Unrepeatable, match="its gradient is"):
        exact_mixed(loss, before, v, [], True, slopes_before=2 * digest(found))


@pytest.mark.usefixtures("float64")
def test_mixed_derivatives_can_be_differentiated_where_gradients_are_on():
    problem = Problem()
    with Recording():
        value = problem.inner(problem.params, problem.body(problem.x), problem.lam)
    loss = InnerLoss(value, problem.params, hold=True)
    v = [torch.randn_like(p) for p in problem.params]
    slopes = torch.autograd.grad(value, problem.params, create_graph=True)
    derivative = sum((a * s).sum() for a, s in zip(v, slopes, strict=True))
    (expected,) = torch.autograd.grad(derivative, problem.lam, create_graph=True)
    targets = [problem.lam, *problem.params]
    expected = torch.autograd.grad(expected.square().sum(), targets)
    (found,) = exact_mixed(loss, problem.params, v, _places(loss, problem.lam))[1]
    found = torch.autograd.grad(found.square().sum(), targets)
    for got, want in zip(found, expected, strict=True):
        assert torch.allclose(got, want, rtol=1e-10, atol=1e-14)


def _places(loss, tensor):
    return [place for place, t in enumerate(loss.inputs) if t is tensor]
