"""Each kind of graph that a gradient step leaves, against the steps written out."""

import pytest
import torch
from by_hand import largest_gap
from marked import Square
from recorded import variables
from stepping import LR, Problem, stepped, written_out

from l2l_evograd.estimators import EvoGrad, Exact, Guided
from l2l_evograd.replay.program import LostHistory
from l2l_evograd.replay.tensor import Recording
from l2l_evograd.updates.gradient import Gradient
from l2l_evograd.updates.inner_step import inner_step
from l2l_evograd.updates.situation import Situation

pytestmark = pytest.mark.usefixtures("float64")

KINDS = {
    "none": (Exact(), {"first_order": True}, False),
    "autograd's own": (Exact(), {}, False),
    "autograd's own, with lambda": (Exact(), {}, True),
    "autograd's own for lambda alone": (Exact(), {"first_order": True}, True),
    "computed again": (Exact(), {"again": True, "insist": True}, False),
    "computed again, with lambda": (Exact(), {"again": True, "insist": True}, True),
    "computed again, lambda alone": (
        Exact(),
        {"again": True, "insist": True, "first_order": True},
        True,
    ),
    "estimated, the rest exact": (Guided(h=0.1), {}, True),
    "estimated, the rest none": (Guided(h=0.1), {"first_order": True}, True),
}


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_graph_gives_the_gradients_of_the_steps_written_out(kind, steps):
    estimator, settings, named = KINDS[kind]
    # A central difference is exact where the loss is quadratic in the weights.
    problem = Problem(linear=not estimator.exact)
    if named:
        settings = {**settings, "hyperparameters": [problem.lam]}
    found, params, _ = stepped(problem, Gradient(estimator), steps, **settings)
    first_order = settings.get("first_order", False)
    expected, at = written_out(problem, steps, named, first_order)
    assert largest_gap(params, at) < 1e-14
    assert largest_gap(found, expected) < 1e-10
    assert min(float(g.abs().max()) for g in found[1:]) > 1e-4
    assert bool(found[0].any()) is (named or not first_order)


@pytest.mark.parametrize("again", [False, True])
def test_what_is_left_out_for_lambda_is_not_lost_for_the_rest(again):
    """λ governs by itself: θ and the body get the curvature whoever estimates λ."""
    problem = Problem()
    settings = {"hyperparameters": [problem.lam], "again": again}
    found, _, _ = stepped(problem, Gradient(EvoGrad(2)), **settings)
    expected, _ = written_out(problem)
    assert largest_gap(found[1:], expected[1:]) < 1e-10
    assert largest_gap(found[:1], expected[:1]) > 1e-6


def test_a_forward_difference_begins_from_the_derivative_that_is_known():
    problem = Problem()
    with Recording():
        value = problem.inner(problem.params, problem.x @ torch.ones(3, 4), problem.lam)
    result = inner_step(
        Gradient(Guided(h=0.1, scheme="forward")),
        Situation(
            value=value,
            params=problem.params,
            names=lambda: problem.names,
            lr=LR,
            hyperparameters=[problem.lam],
            first_order=True,
        ),
    )
    v = [torch.randn_like(p) for p in problem.params]
    norm = torch.cat([t.flatten() for t in v]).norm()

    def slope(at):
        inner = problem.inner(at, problem.x @ torch.ones(3, 4), problem.lam)
        return torch.autograd.grad(inner, problem.lam)[0]

    ahead = [p + 0.1 * t / norm for p, t in zip(problem.params, v, strict=True)]
    expected = -LR * norm * (slope(ahead) - slope(problem.params)) / 0.1
    (found,) = torch.autograd.grad(result.params, problem.lam, v)
    assert largest_gap([found], [expected]) < 1e-12


def test_the_estimate_of_a_population_is_the_formula():
    problem = Problem()
    estimator = EvoGrad(4, sigma=0.1)
    _, params, result = stepped(
        problem,
        Gradient(estimator),
        steps=1,
        hyperparameters=[problem.lam],
        first_order=True,
        seed=5,
    )
    v = [torch.randn_like(p) for p in problem.params]
    (found,) = torch.autograd.grad(result.params, problem.lam, v)
    noise = estimator.perturbations(problem.params, 5)
    scores, rows = [], []
    features = problem.body(problem.x)
    for k in range(4):
        drawn = noise.draw(k)
        scores.append(sum((a * b).sum() for a, b in zip(v, drawn, strict=True)))
        at = [p + e for p, e in zip(problem.params, drawn, strict=True)]
        inner = problem.inner(at, features, problem.lam)
        rows.append(torch.autograd.grad(inner, problem.lam, retain_graph=True)[0])
    scores = torch.stack(scores) - torch.stack(scores).mean()
    expected = -LR * (scores @ torch.stack(rows)) / (3 * 0.1**2)
    assert largest_gap([found], [expected]) < 1e-12


def test_a_step_says_what_it_found_and_what_it_keeps():
    problem = Problem()
    unused = torch.ones((), requires_grad=True)
    exact = {"hyperparameters": [problem.lam, unused], "extras": [problem.body.bias]}
    for estimator in (Exact(), Guided()):
        for settings in ({}, {"first_order": True}):
            _, _, result = stepped(problem, Gradient(estimator), 1, **exact, **settings)
            value = problem.inner(problem.params, problem.body(problem.x), problem.lam)
            slopes = torch.autograd.grad(value, [*problem.params, problem.body.bias])
            assert result.reached == [True, False]
            assert largest_gap(result.gradients, slopes[:-1]) < 1e-14
            assert largest_gap(result.extras, slopes[-1:]) < 1e-14
            assert not any(t.requires_grad for t in result.gradients + result.extras)
            assert bool(result.graph) is estimator.exact


def test_rates_of_every_kind_move_the_weights():
    problem = Problem()
    single = torch.tensor(LR, requires_grad=True)
    for rate in (single, torch.full((1,), LR)):
        rates = [rate] * len(problem.params)
        for again in (False, True):
            found, params, result = stepped(
                problem, Gradient(Exact()), 1, lr=rates, again=again
            )
            expected, at = written_out(problem, 1)
            assert largest_gap(params, at) < 1e-14
            assert largest_gap(found, expected) < 1e-10
            if rate.requires_grad:
                v = [torch.randn_like(p) for p in params]
                (grad,) = torch.autograd.grad(result.params, rate, v)
                pairs = zip(v, result.gradients, strict=True)
                by_hand = -sum((a * b).sum() for a, b in pairs)
                assert largest_gap([grad], [by_hand]) < 1e-12


def situation(function, params, **settings):
    with Recording():
        value = function(*params)
    names = ["first", "second"]
    return Situation(value=value, params=list(params), names=lambda: names, **settings)


def test_a_loss_that_cannot_be_repeated_keeps_its_graph_unless_somebody_insists():
    params = variables((3,), (3,))

    def hidden(w, v):
        return (Square.apply(w) * v).sum()

    result = Gradient(Exact()).step(situation(hidden, params, again=True, lr=1.0))
    assert result.graph
    loss = sum(p.square().sum() for p in result.params)
    found = torch.autograd.grad(loss, params)
    w, v = params
    after = (w - 2 * w * v), (v - w * w)
    expected = torch.autograd.grad(sum(t.square().sum() for t in after), params)
    assert largest_gap(found, expected) < 1e-10
    for settings in ({"insist": True}, {"hyperparameters": [params[1]]}):
        with pytest.raises(LostHistory, match="estimator='exact' with memory='graph'"):
            Gradient(Guided()).step(situation(hidden, params, again=True, **settings))


def test_weights_that_the_loss_does_not_use_are_named_or_left():
    params = variables((3,), (3,))

    def function(w, v):
        return w.square().sum()

    for settings in ({}, {"first_order": True}, {"again": True}):
        with pytest.raises(ValueError, match="not use 1 of the 2 adapted .*: second"):
            Gradient().step(situation(function, params, **settings))
        now = situation(function, params, allow_unused=True, **settings)
        after = Gradient().step(now).params
        assert torch.equal(after[1], params[1])
        assert not torch.equal(after[0], params[0])


@pytest.mark.parametrize("again", [False, True])
def test_a_loss_of_none_of_the_weights_or_without_gradients_is_refused(again):
    params = variables((3,), (3,))
    other = torch.ones((), requires_grad=True)
    with pytest.raises(ValueError, match="does not depend on the learner's present w"):
        Gradient().step(situation(lambda w, v: other * 2, params, again=again))
    with pytest.raises(ValueError, match="does not require grad"):
        Gradient().step(situation(lambda w, v: w.detach().sum(), params, again=again))
