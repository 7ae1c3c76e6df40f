"""What comparisons refuse, and what they say of it."""

import dataclasses
import math
import sys
from typing import Any

import pytest
import torch
from problems import (
    Problem,
    quadratic,
)

from l2l_evograd.oracle.comparison import Comparison, compare


def compared(problem: Problem, **settings: Any) -> Comparison:
    settings = {"draws": 3, "repeats": 1, "memory": False, "lr": problem.lr, **settings}
    return compare(
        problem.model,
        problem.inner_loss,
        problem.outer_loss,
        problem.hyperparameters,
        **settings,
    )


def test_unused_hyperparameters_are_refused_or_allowed() -> None:
    problem = quadratic()
    idle = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    named = [*problem.hyperparameters, idle]
    problem = dataclasses.replace(problem, hyperparameters=named)
    with pytest.raises(ValueError, match="does not depend on hyperparameter 1"):
        compared(problem)
    found = compared(problem, allow_unused=True, estimators={"exact": "exact"})
    assert torch.equal(found.exact[1], torch.zeros_like(idle))
    assert found["exact"].fidelity.cosine.value == pytest.approx(1)


def test_a_method_that_is_not_there_is_named_with_those_that_are() -> None:
    found = compared(quadratic(), estimators={"exact": "exact"})
    with pytest.raises(KeyError, match="no method 'guided'; there are exact"):
        found["guided"]


def test_without_rich_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compared(quadratic(), estimators={"exact": "exact"})
    monkeypatch.setitem(sys.modules, "rich.table", None)
    with pytest.raises(ImportError, match=r"l2l-evograd\[oracle\]"):
        found.print()


def test_an_exact_answer_of_zero_is_refused() -> None:
    problem = quadratic()  # whose hypergradient is proportional to λ
    with torch.no_grad():
        problem.hyperparameters[0].zero_()
    with pytest.raises(ValueError, match="exact hypergradient is 0 or not finite"):
        compared(problem)


@pytest.mark.parametrize(
    ("settings", "kind", "text"),
    [
        ({"estimators": ["exact"]}, TypeError, "a dictionary of names .* got list"),
        ({"estimators": {}}, ValueError, "at least one estimator, got an empty"),
        ({"estimators": {1: "exact"}}, TypeError, "keys of estimators to be names"),
        ({"estimators": {"a": "best"}}, ValueError, "estimator to be one of"),
        ({"estimators": {"a": 3}}, TypeError, "expected estimator to be EvoGrad"),
        (
            {"estimators": {"a": ("evolution", "guided")}},
            ValueError,
            "expected estimator=EvoGrad",
        ),
        ({"estimators": {"a": ("newton", None)}}, ValueError, "update to be one of"),
        (
            {"estimators": {"a": ("gradient", "exact", 1)}},
            ValueError,
            r"a pair \(update, estimator\), got 3 items",
        ),
        ({"draws": 0}, ValueError, "draws to be a whole number of at least 1, got 0"),
        ({"draws": 2.0}, ValueError, "draws to be a whole number"),
        ({"repeats": 0}, ValueError, "repeats to be a whole number of at least 1"),
        ({"steps": 0}, ValueError, "steps to be a whole number of at least 1"),
        ({"seed": "x"}, TypeError, "seed to be a whole number, got 'x'"),
        ({"deltas": 0.1}, TypeError, "deltas to be a list or tuple .* got float"),
        ({"deltas": "0.1"}, TypeError, "deltas to be a list or tuple .* got str"),
        ({"deltas": (0.1, 0.0)}, ValueError, "every delta to be positive and finite"),
        ({"deltas": (-1.0,)}, ValueError, "every delta to be positive and finite"),
        ({"deltas": (math.inf,)}, ValueError, "every delta to be positive and finite"),
        ({"deltas": (math.nan,)}, ValueError, "every delta to be positive and finite"),
        ({"deltas": ("a",)}, ValueError, "every delta to be positive and finite"),
        ({"lr": -1.0}, ValueError, "lr to be positive and finite"),
    ],
)
def test_bad_settings_are_refused_with_a_remedy(
    settings: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        compared(quadratic(), **settings)


def test_hyperparameters_that_are_not_found_are_refused() -> None:
    problem = quadratic()
    with pytest.raises(ValueError, match="'decay'; the model has weight"):
        compare(problem.model, problem.inner_loss, problem.outer_loss, "decay", lr=0.1)
