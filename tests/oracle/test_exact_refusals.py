"""What exact hypergradients refuse, and what they say of it."""

import sys
from typing import Any

import pytest
import torch
from problems import Problem, quadratic
from torch import Tensor

from l2l_evograd.oracle.exact import (
    exact_hypergradient,
)

CPU = torch.device("cpu")


def exact(problem: Problem, **settings: Any) -> list[Tensor]:
    return exact_hypergradient(
        problem.model,
        problem.inner_loss,
        problem.outer_loss,
        problem.hyperparameters,
        problem.lr,
        **settings,
    )


def with_unused() -> tuple[Problem, Tensor]:
    problem = quadratic()
    idle = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    named = [*problem.hyperparameters, idle]
    losses = (problem.inner_loss, problem.outer_loss)
    return Problem("unused", problem.model, *losses, named, problem.lr), idle


def test_an_unused_hyperparameter_is_named() -> None:
    problem, _ = with_unused()
    with pytest.raises(ValueError, match="does not depend on hyperparameter 1"):
        exact(problem)


def test_an_unused_hyperparameter_gets_zeros_when_allowed() -> None:
    problem, idle = with_unused()
    found = exact(problem, allow_unused=True)
    assert torch.equal(found[1], torch.zeros_like(idle))
    assert torch.equal(found[0], exact(quadratic())[0])


def test_an_outer_loss_without_gradient_reaches_no_hyperparameter() -> None:
    problem = quadratic()
    constant = torch.tensor(1.0)
    with pytest.raises(ValueError, match="does not depend on hyperparameter 0"):
        exact_hypergradient(
            problem.model,
            problem.inner_loss,
            lambda model: constant,
            problem.hyperparameters,
            0.1,
        )


def test_an_inner_loss_of_the_model_around_it_is_refused() -> None:
    problem = quadratic()
    model, hyper = problem.model, problem.hyperparameters
    wrong = (
        lambda view: problem.inner_loss(model),
        lambda view: torch.tensor(1.0),
    )
    for inner_loss in wrong:
        with pytest.raises(ValueError, match="not from the model around it"):
            exact_hypergradient(model, inner_loss, problem.outer_loss, hyper, 0.1)


@pytest.mark.parametrize("which", ["inner", "outer"])
def test_losses_that_are_no_finite_scalars_are_refused(which: str) -> None:
    problem = quadratic()
    losses = {"inner": problem.inner_loss, "outer": problem.outer_loss}
    good = losses[which]
    cases: list[tuple[Any, type[Exception], str]] = [
        (lambda view: 1.0, TypeError, f"the {which} loss to be a scalar tensor"),
        (lambda view: good(view) * view(), ValueError, "tensor of shape"),
        (lambda view: good(view) * torch.inf, ValueError, "to be finite, got"),
    ]
    for loss, kind, text in cases:
        losses[which] = loss
        with pytest.raises(kind, match=text):
            exact_hypergradient(
                problem.model,
                losses["inner"],
                losses["outer"],
                problem.hyperparameters,
                problem.lr,
            )


def test_bad_arguments_are_refused_with_a_remedy() -> None:
    problem = quadratic()
    good: dict[str, Any] = dict(
        model=problem.model,
        inner_loss=problem.inner_loss,
        outer_loss=problem.outer_loss,
        hyperparameters=problem.hyperparameters,
        lr=0.1,
    )
    leaf = problem.hyperparameters[0]
    cases: list[tuple[str, Any, type[Exception], str]] = [
        ("model", {"w": leaf}, TypeError, "a torch.nn.Module, got dict"),
        ("inner_loss", leaf, TypeError, "expected inner_loss to be a function"),
        ("outer_loss", 3, TypeError, "expected outer_loss to be a function"),
        ("hyperparameters", None, TypeError, "tensors, modules or names, got None"),
        ("hyperparameters", 3, TypeError, "tensors, modules or names, got int"),
        ("hyperparameters", [], ValueError, "at least one hyperparameter"),
        ("hyperparameters", "decay", ValueError, "'decay'; the model has weight"),
        ("hyperparameters", leaf.detach(), ValueError, "that require grad"),
        ("hyperparameters", leaf * 2, ValueError, "expected hyperparameters that are"),
        ("hyperparameters", "weight", ValueError, "the inner step has nothing to move"),
        ("lr", 0.0, ValueError, "expected lr to be positive and finite, got 0.0"),
        ("lr", "fast", ValueError, "expected lr to be positive and finite"),
        ("steps", 0, ValueError, "expected steps to be a whole number of at least 1"),
        ("steps", 1.5, ValueError, "expected steps to be a whole number"),
        ("steps", True, ValueError, "expected steps to be a whole number"),
    ]
    for name, value, kind, text in cases:
        with pytest.raises(kind, match=text):
            exact_hypergradient(**{**good, name: value})


def test_without_higher_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "higher", None)
    with pytest.raises(ImportError, match=r"l2l-evograd\[oracle\]"):
        exact(quadratic())
