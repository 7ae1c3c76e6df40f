"""What is not finite is found before anything moves, or everything is put back."""

import math

import pytest
import torch
from small_calls import Problem, X

from l2l_evograd import bilevel_gradients, bilevel_step, hypergradient, reweighting_step
from l2l_evograd.checks import InputError, NotFiniteError
from l2l_evograd.unroll import greedy


def without_gradient(loss):
    return loss + (loss * 0).sqrt()


def inner_is_nan(problem):
    return {"inner_loss": lambda view: problem.inner(view) * math.nan}


def inner_gradient_is_nan(problem):
    return {"inner_loss": lambda view: without_gradient(problem.inner(view))}


def outer_is_infinite(problem):
    return {"outer_loss": lambda view: problem.outer(view) + math.inf}


def outer_gradient_is_nan(problem):
    return {"outer_loss": lambda view: without_gradient(problem.outer(view))}


def gradient_of_lambda_alone_is_nan(problem):
    direct = lambda: (problem.lam[0] * 0).abs().sqrt()  # noqa: E731
    return {"outer_loss": lambda view: problem.outer(view) + direct()}


def lambda_is_infinite(problem):
    with torch.no_grad():
        problem.lam[2] = math.inf  # sigmoid(λ) is 1
    return {}


def a_weight_is_infinite(problem):
    problem.model[3] = torch.nn.Sequential(torch.nn.Tanh(), problem.model[3])
    with torch.no_grad():
        problem.model[0].bias[1] = math.nan
    return {}


class Failing(torch.optim.SGD):
    """Has moved when it raises an error."""

    def step(self, closure=None):
        super().step(closure)
        raise NotFiniteError("expected the rate of this optimizer to be finite")


class Overflowing(torch.optim.Adam):
    """Its state overflows, and what it moves does not."""

    def step(self, closure=None):
        super().step(closure)
        for state in self.state.values():
            state["exp_avg_sq"].view(-1)[0] = math.inf


def base_optimizer_fails(problem):
    return {"base_optimizer": Failing(problem.model.parameters(), lr=0.1)}


def base_state_overflows(problem):
    return {"base_optimizer": Overflowing(problem.model.parameters(), lr=0.1)}


def hyper_state_overflows(problem):
    return {"hyper_optimizer": Overflowing([problem.lam], lr=0.1)}


BAD = [
    inner_is_nan, inner_gradient_is_nan, outer_is_infinite, outer_gradient_is_nan,
    gradient_of_lambda_alone_is_nan, lambda_is_infinite, a_weight_is_infinite,
    base_optimizer_fails, base_state_overflows, hyper_state_overflows,
]  # fmt: skip
STEPS = [("gradient", "after"), ("gradient", "before"), ("evolution", "before")]


def step(problem, **settings):
    usual = {
        "model": problem.model,
        "inner_loss": problem.inner,
        "outer_loss": problem.outer,
        "base_optimizer": problem.base,
        "hyper_optimizer": problem.hyper,
        "generator": problem.generator,
    }
    return bilevel_step(**{**usual, **settings})


def same(before, after):
    pairs = zip(before, after, strict=True)
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(("update", "base_step"), STEPS)
def test_a_step_that_is_not_finite_moves_nothing(update, base_step, bad):
    problem = Problem()
    settings = {**bad(problem), "update": update, "base_step": base_step}
    before = problem.state()
    grads = [p.grad for p in problem.model.parameters()]
    with pytest.raises(NotFiniteError, match="expected .* to be finite"):
        step(problem, **settings)
    assert same(before, problem.state())
    found = step(problem, **settings, nan_policy="skip")
    assert found.skipped
    assert all(t.isnan().all() for t in (*found[:2], *found.hypergradient))
    assert same(before, problem.state())
    assert [id(p.grad) for p in problem.model.parameters()] == [id(g) for g in grads]
    for optimizer in (settings.get("base_optimizer"), settings.get("hyper_optimizer")):
        assert not (optimizer and optimizer.state)


def test_a_finite_step_is_the_same_with_both_policies():
    raised, skipping = Problem(), Problem()
    with torch.no_grad():
        for a, b in zip(
            skipping.model.state_dict().values(),
            raised.model.state_dict().values(),
            strict=True,
        ):
            a.copy_(b)
    ends = []
    for problem, policy in ((raised, "raise"), (skipping, "skip")):
        torch.manual_seed(3)
        assert not step(problem, nan_policy=policy).skipped
        ends.append(problem.state())
    assert same(*ends)


def test_lambda_that_a_step_makes_infinite_is_found_before_the_next_loss():
    problem, calls = Problem(), []

    def inner(view):
        calls.append(bool(problem.lam.isfinite().all()))
        return problem.inner(view)

    hyper = torch.optim.SGD([problem.lam], lr=3e38)
    with pytest.raises(NotFiniteError):
        step(
            problem,
            inner_loss=inner,
            outer_loss=lambda view: problem.outer(view) + problem.lam.sum() * 10,
            hyper_optimizer=hyper,
        )
    assert all(calls)


@pytest.mark.parametrize("bad", BAD[:7])
def test_a_hypergradient_that_is_not_finite_is_refused(bad):
    problem = Problem()
    settings = bad(problem)
    before = problem.state()
    losses = {"inner_loss": problem.inner, "outer_loss": problem.outer}
    with pytest.raises(NotFiniteError):
        hypergradient(
            **{**losses, **settings},
            params=problem.model,
            hyperparameters=problem.lam,
            lr=0.1,
            steps=2,
            generator=problem.generator,
        )
    assert same(before, problem.state())


def test_gradients_of_scaled_losses_may_be_infinite_and_a_value_may_not():
    problem = Problem()
    found = bilevel_gradients(
        problem.model,
        problem.inner,
        lambda view: without_gradient(problem.outer(view)),
        hyperparameters=problem.lam,
        lr=0.1,
        estimator="exact",
    )
    assert not found.hypergradient[0].isfinite().all()
    lambda_is_infinite(problem)
    before = problem.state()
    with pytest.raises(NotFiniteError, match="the hyperparameters to be finite"):
        bilevel_gradients(
            problem.model, problem.inner, problem.outer, hyperparameters=problem.lam,
            lr=0.1,
        )  # fmt: skip
    assert same(before, problem.state())


def test_a_weighted_step_that_is_not_finite_is_left_out():
    problem = Problem()
    before = problem.state()
    found = reweighting_step(
        problem.model,
        lambda view: view(torch.ones(3, 4)).sum(1),
        lambda view: problem.outer(view) * math.nan,
        problem.base,
        3,
        nan_policy="skip",
    )
    assert found.skipped
    assert found.weights.shape == (3,)
    assert found.weights.isnan().all()
    assert same(before, problem.state())


@pytest.mark.parametrize("where", ["inner_loss", "outer_loss"])
def test_a_write_through_data_is_noticed_and_put_back(where):
    problem = Problem()

    def writing(view):
        for parameter in view.parameters():
            parameter.data.mul_(0.5)
        return problem.inner(view)

    before = problem.state()
    with pytest.raises(RuntimeError, match="in place, perhaps through .data"):
        step(problem, **{where: writing})
    assert same(before, problem.state())


def test_an_error_of_the_user_puts_everything_back():
    problem = Problem()
    before = problem.state()

    def broken(view):
        problem.outer(view)
        raise KeyError("no such batch")

    with pytest.raises(KeyError):
        step(problem, outer_loss=broken, base_step="before", update="evolution")
    assert same(before, problem.state())


def test_the_grad_of_a_tensor_that_retains_it_is_left_alone():
    problem = Problem()
    lam = problem.lam * 1
    lam.retain_grad()

    def inner(view):
        return (torch.sigmoid(lam).mean()) * problem.outer(view)

    hypergradient(inner, problem.outer, problem.model, lam, lr=0.1)
    assert lam.grad is None


def test_a_graph_that_is_used_in_two_derivatives_is_explained():
    problem = Problem()
    scale = torch.sigmoid(problem.lam)
    with pytest.raises(InputError, match="move that computation into the loss"):
        greedy(
            lambda view: (scale * view(X).square().sum(1)).mean(),
            problem.outer,
            problem.model,
            problem.lam,
            lr=0.1,
            steps=2,
        )
