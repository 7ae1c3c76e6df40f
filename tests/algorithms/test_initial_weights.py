"""How WarpGrad's initial weights learn, against transcriptions and closed forms."""

import itertools

import pytest
import torch
from torch.nn import functional as F
from warped import (
    WARPS,
    Quadratic,
    Warped,
    batches,
    constant,
    is_warp,
    loss_at,
    split,
    step,
)

from l2l_evograd.algorithms.initial_weights import loss_with_gradient
from l2l_evograd.algorithms.warpgrad import WarpGrad

pytestmark = pytest.mark.usefixtures("float64")

LR = 0.1


def adapted(init, model, data, lr=LR):
    learner = WarpGrad(model, lr, warp=WARPS, init=init, first_order=True).clone()
    for support, _ in data:
        learner.adapt(F.cross_entropy(learner(support[0]), support[1]))
    return learner


def check(model, expected, tolerance=1e-12):
    for name, parameter in model.named_parameters():
        if is_warp(name):
            assert parameter.grad is None
        else:
            assert torch.allclose(parameter.grad, expected[name], tolerance, tolerance)


@pytest.mark.parametrize("init, create_graph", [("maml", True), ("fomaml", False)])
def test_maml_differentiates_the_last_query_loss(init, create_graph):
    model, data = Warped(), batches(4)
    theta, phi = split(model)
    here = theta
    for support, _ in data:
        after = step(model, here, phi, support, LR, create_graph=True)
        here = after if create_graph else constant(after)
    query = data[-1][1]
    ends = theta if create_graph else here
    grads = torch.autograd.grad(loss_at(model, here, phi, query), list(ends.values()))
    learner = adapted(init, model, data)
    loss = F.cross_entropy(learner(query[0]), query[1])
    found = learner.init_loss(loss)
    assert torch.equal(found, loss)
    found.backward()
    check(model, dict(zip(theta, grads, strict=True)))


def test_reptile_points_from_the_last_weights_to_the_first():
    model, data = Warped(), batches(3)
    learner = adapted("reptile", model, data)
    loss = learner.init_loss()
    loss.backward()
    last = dict(learner.module.named_parameters())
    first = dict(model.named_parameters())
    check(model, {n: first[n].detach() - last[n].detach() for n in first})
    squares = [p.grad.square().sum() for p in model.parameters() if p.grad is not None]
    assert torch.allclose(loss, sum(squares) / 2)


def test_reptile_on_a_quadratic_has_its_closed_form():
    model, steps = Quadratic(), 5
    with torch.no_grad():
        model.warp.copy_(torch.eye(4))
    learner = WarpGrad(model, LR, "warp", init="reptile").clone()
    for _ in range(steps):
        learner.adapt(learner().square().sum() / 2)
    learner.init_loss().backward()
    expected = (1 - (1 - LR) ** steps) * model.theta
    assert torch.allclose(model.theta.grad, expected, rtol=1e-14)


@pytest.mark.parametrize("lr", [0.1, 1.0])
def test_leap_is_its_formula_line_by_line(lr):
    torch.manual_seed(0)
    model, data = Warped(), batches(5)
    theta, phi = split(model)
    losses, points, grads = [], [], []
    for support, _ in data:
        losses.append(loss_at(model, theta, phi, support))
        points.append(theta)
        grads.append(torch.autograd.grad(losses[-1], list(theta.values())))
        theta = constant(step(model, theta, phi, support, lr, create_graph=False))
    final = data[0][0]
    losses.append(loss_at(model, theta, phi, final))
    points.append(theta)
    expected = {name: torch.zeros_like(value) for name, value in theta.items()}
    length = 0.0
    for k in range(1, len(points)):
        rise = losses[k] - losses[k - 1]
        moves = {n: points[k][n] - points[k - 1][n] for n in theta}
        distance = sum(m.square().sum() for m in moves.values()) + rise**2
        length += distance.sqrt()
        for name, slope in zip(theta, grads[k - 1], strict=True):
            part = -abs(rise) * slope + moves[name]
            expected[name] = expected[name] - part / distance.sqrt()
    assert any(b > a for a, b in itertools.pairwise(losses))
    assert any(b < a for a, b in itertools.pairwise(losses))
    learner = adapted("leap", model, data, lr)
    found = learner.init_loss(F.cross_entropy(learner(final[0]), final[1]))
    assert torch.allclose(found, length)
    found.backward()
    check(model, {n: e.detach() for n, e in expected.items()})


def test_leap_at_a_point_that_does_not_move_is_no_nan():
    model = Quadratic()
    with torch.no_grad():
        model.theta.zero_()
    learner = WarpGrad(model, LR, "warp", init="leap").clone()
    for _ in range(2):
        learner.adapt(learner().square().sum())
    learner.init_loss(learner().square().sum()).backward()
    assert torch.equal(model.theta.grad, torch.zeros(4))


def test_gradients_add_up_over_tasks_and_scale_with_the_loss():
    model, data = Warped(), batches(2)
    single = []
    for task in data:
        model.zero_grad()
        adapted("reptile", model, [task]).init_loss().backward()
        single.append({n: p.grad for n, p in model.named_parameters()})
    model.zero_grad()
    sum(adapted("reptile", model, [task]).init_loss() / 4 for task in data).backward()
    first, second = single
    check(model, {n: (first[n] + second[n]) / 4 for n in first if not is_warp(n)})


def test_a_loss_with_a_gradient_has_value_and_gradient():
    params = [torch.randn(3, requires_grad=True), torch.randn(2, 2, requires_grad=True)]
    gradient = [torch.randn(3), torch.randn(2, 2)]
    value = torch.tensor(2.5)
    loss = loss_with_gradient(value, params, gradient)
    assert torch.equal(loss, value)
    (3 * loss).backward()
    for param, part in zip(params, gradient, strict=True):
        assert torch.equal(param.grad, 3 * part)


def test_a_loss_with_a_gradient_cannot_be_differentiated_twice():
    params = [torch.randn(3, requires_grad=True)]
    loss = loss_with_gradient(torch.ones(()), params, [torch.ones(3)])
    (grad,) = torch.autograd.grad(loss.square(), params, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
