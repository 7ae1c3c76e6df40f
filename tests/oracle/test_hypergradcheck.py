"""hypergradcheck: what passes, what fails, and what it leaves alone."""

import dataclasses
import math
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from problems import PROBLEMS, Problem, hyperparameters_inside, quadratic, smooth_mlp
from torch import Tensor, nn
from untouched import untouched

from l2l_evograd import EvoGrad, Exact, Guided, Hypergradient, hypergradcheck
from l2l_evograd.bilevel import hypergradient
from l2l_evograd.oracle import HypergradcheckError, verification


def checked(problem: Problem, **settings: Any) -> bool:
    return hypergradcheck(
        problem.inner_loss,
        problem.outer_loss,
        problem.model,
        problem.hyperparameters,
        **{"lr": problem.lr, **settings},
    )


def multiplied(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Make the estimate wrong by a factor; the exact answers do not come from it."""

    def wrong(*args: Any, **settings: Any) -> Hypergradient:
        found = hypergradient(*args, **settings)
        return found._replace(gradients=[factor * part for part in found.gradients])

    monkeypatch.setattr(verification, "hypergradient", wrong)


@pytest.fixture(autouse=True)
def same_masks() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def without_higher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "higher", None)


# relu_mlp has kinks between the ends of the difference: see below.
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", [name for name in PROBLEMS if name != "relu_mlp"])
def test_exact_and_guided_pass(name: str, steps: int) -> None:
    for estimator in ("exact", None, "guided", Guided(scheme="forward")):
        assert checked(PROBLEMS[name](), estimator=estimator, steps=steps) is True


@pytest.mark.usefixtures("without_higher")
@pytest.mark.parametrize("name", PROBLEMS)
def test_exact_passes_without_higher(name: str) -> None:
    assert checked(PROBLEMS[name](), estimator=Exact(), steps=2)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_papers_algorithm_is_held_against_itself(name: str, steps: int) -> None:
    for estimator in (None, EvoGrad(4, noise="gaussian", sampling="antithetic")):
        settings = {"update": "evolution", "estimator": estimator, "steps": steps}
        assert checked(PROBLEMS[name](), **settings)
        assert checked(PROBLEMS[name](), **settings, lr=None, seed=1)


@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_evograd_passes_with_any_seed(noise: str) -> None:
    # A right estimate fails with a chance of at most 1 in 1,000, ten times 1 in 100.
    estimator = EvoGrad(4, noise=noise)
    for seed in range(10):
        assert checked(smooth_mlp(), estimator=estimator, draws=100, seed=seed)


def test_evograd_passes_through_several_steps() -> None:
    assert checked(hyperparameters_inside(), estimator=EvoGrad(8), steps=2, draws=100)


def single() -> Problem:
    problem = smooth_mlp()
    model = problem.model.float()
    logits = torch.linspace(-0.5, 0.5, 12, requires_grad=True)

    def inner_loss(view: nn.Module) -> Tensor:
        x = torch.linspace(-1, 1, 60).view(12, 5).sin()
        return (torch.sigmoid(logits) * view(x).square().sum(dim=1)).mean()

    def outer_loss(view: nn.Module) -> Tensor:
        return view(torch.ones(2, 5)).square().mean()

    return dataclasses.replace(
        problem,
        model=model,
        inner_loss=inner_loss,
        outer_loss=outer_loss,
        hyperparameters=[logits],
    )


def test_single_precision_passes_with_its_own_tolerance() -> None:
    for estimator in (Exact(), Guided(), EvoGrad(8)):
        assert checked(single(), estimator=estimator, draws=64)
    assert checked(single(), update="evolution")
    with pytest.raises(HypergradcheckError, match="the model in float64"):
        checked(single(), estimator=Guided(), rtol=1e-7)


@pytest.mark.parametrize("name", PROBLEMS)
def test_everything_is_bitwise_as_before(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    problem = PROBLEMS[name]()
    for tensor in problem.hyperparameters:
        tensor.grad = torch.full_like(tensor, 2.0)
    with untouched(problem.model, *problem.hyperparameters):
        checked(problem, estimator=Exact(), steps=2)
        checked(problem, update="evolution", steps=2)
        multiplied(monkeypatch, 1.5)
        with pytest.raises(HypergradcheckError):
            checked(problem, estimator=Guided())


def test_a_wrong_factor_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    multiplied(monkeypatch, 1 + 1e-6)
    for settings in ({"estimator": Exact()}, {"update": "evolution"}):
        with pytest.raises(HypergradcheckError, match=r"\d+ of 12 comparisons"):
            checked(smooth_mlp(), **settings)
    assert checked(smooth_mlp(), estimator=Exact(), rtol=1e-5)
    assert checked(smooth_mlp(), estimator=Exact(), rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("factor", [0.5, 2.0, -1.0])
def test_a_wrong_factor_is_found_below_the_noise(
    monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    multiplied(monkeypatch, factor)
    with pytest.raises(HypergradcheckError, match="standard errors"):
        checked(smooth_mlp(), estimator=EvoGrad(8), draws=100)


def test_an_answer_that_is_no_number_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    multiplied(monkeypatch, math.nan)
    with pytest.raises(HypergradcheckError, match="found    nan"):
        checked(smooth_mlp(), estimator=Exact(), rtol=10.0)


def test_kinks_within_the_reach_of_a_difference_fail() -> None:
    with pytest.raises(HypergradcheckError, match="kinks"):
        checked(PROBLEMS["relu_mlp"](), estimator=Guided(), steps=3)


def test_a_failure_is_a_failed_assertion() -> None:
    assert issubclass(HypergradcheckError, AssertionError)


def test_a_check_that_zero_would_pass_is_none() -> None:
    with pytest.raises(HypergradcheckError, match="an answer of 0.*raise draws"):
        checked(smooth_mlp(), estimator=EvoGrad(), draws=30)
    with pytest.raises(HypergradcheckError, match="undecided.*lower rtol and atol"):
        checked(smooth_mlp(), estimator=Exact(), rtol=1.5)


def test_an_exact_answer_of_zero_is_refused() -> None:
    problem = quadratic()  # whose hypergradient is proportional to λ
    with torch.no_grad():
        problem.hyperparameters[0].zero_()
    with pytest.raises(ValueError, match="exact hypergradient is 0 or not finite"):
        checked(problem)


def test_unused_hyperparameters_are_refused_or_allowed() -> None:
    problem = quadratic()
    idle = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    named = [idle, *problem.hyperparameters]
    problem = dataclasses.replace(problem, hyperparameters=named)
    for settings in ({"estimator": "exact"}, {"update": "evolution"}):
        with pytest.raises(ValueError, match="does not depend on hyperparameter 0"):
            checked(problem, **settings)
        assert checked(problem, allow_unused=True, **settings)


@pytest.mark.parametrize(
    ("settings", "kind", "text"),
    [
        ({"lr": None}, ValueError, "lr to be positive and finite, got None"),
        ({"lr": -1.0}, ValueError, "lr to be positive and finite"),
        ({"steps": 0}, ValueError, "steps to be a whole number of at least 1"),
        ({"draws": 29}, ValueError, "draws to be a whole number of at least 30"),
        ({"rtol": -1.0}, ValueError, "rtol to be at least 0 and finite, got -1.0"),
        ({"atol": math.inf}, ValueError, "atol to be at least 0 and finite"),
        ({"seed": 0.5}, TypeError, "seed to be a whole number"),
        ({"estimator": "best"}, ValueError, "estimator to be one of"),
        ({"update": "newton"}, ValueError, "update to be one of"),
        (
            {"update": "evolution", "estimator": "exact"},
            ValueError,
            "expected estimator=EvoGrad",
        ),
    ],
)
def test_bad_settings_are_refused_with_a_remedy(
    settings: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        checked(quadratic(), **settings)
