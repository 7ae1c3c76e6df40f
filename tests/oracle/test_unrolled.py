"""Unrolled problems: λ that moves and comes back, and the direct term."""

import dataclasses

import pytest
import torch
from problems import (
    PROBLEMS,
    hyperparameters_inside,
    quadratic,
    quadratic_with_direct_term,
    smooth_mlp,
    unrolled,
)
from torch import Tensor, nn
from untouched import untouched


def test_moved_hyperparameters_come_back_after_an_exception() -> None:
    problem = smooth_mlp()
    ground = unrolled(problem)
    along = [torch.full_like(t, 1 / 3) for t in problem.hyperparameters]
    with untouched(problem.model, *problem.hyperparameters):
        with pytest.raises(KeyError, match="mine"):
            with ground.moved(along, 0.1):
                raise KeyError("mine")


def test_a_direction_of_the_wrong_length_moves_nothing_for_good() -> None:
    problem = PROBLEMS["batch_norm_and_dropout"]()
    ground = unrolled(problem)
    with untouched(problem.model, *problem.hyperparameters):
        with pytest.raises(ValueError):
            with ground.moved([torch.ones(2, dtype=torch.float64)], 0.1):
                pass


def test_the_direct_term_is_that_of_the_outer_loss_alone() -> None:
    problem = quadratic_with_direct_term()
    ground = unrolled(problem)
    weights = {"weight": torch.ones(7, dtype=torch.float64)}
    with untouched(problem.model, *problem.hyperparameters):
        found = ground.direct_term(weights)
    assert found is not None
    torch.testing.assert_close(found[0], 0.3 * problem.hyperparameters[0].detach())
    assert unrolled(quadratic()).direct_term(weights) is None


def test_the_direct_term_knows_hyperparameters_inside_the_model() -> None:
    problem = hyperparameters_inside()
    ground = unrolled(problem)
    weights = {n: p.detach() + 0.1 for n, p in problem.model.named_parameters()}
    found = ground.direct_term(weights)
    assert found is not None
    moved = dict(problem.model.named_parameters())
    scale, _ = problem.hyperparameters
    exchanged = {n: w for n, w in weights.items() if n not in ("scale", "spread")}

    class View(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            tensors = {**moved, **exchanged}
            return torch.func.functional_call(problem.model, tensors, (x,))

        def eval(self) -> "View":
            return self

    problem.model.eval()
    wanted = torch.autograd.grad(problem.outer_loss(View()), scale)
    problem.model.train()
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-12, atol=0)
    assert torch.equal(found[1], torch.zeros_like(found[1]))


def test_a_constant_outer_loss_has_no_direct_term() -> None:
    problem = quadratic()
    problem = dataclasses.replace(problem, outer_loss=lambda view: torch.tensor(1.0))
    assert unrolled(problem).direct_term({}) is None
