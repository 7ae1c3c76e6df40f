"""Measurements behind a comparison: what is scaled, and what cannot move."""

import torch
from problems import Problem, quadratic, quadratic_with_direct_term
from torch import Tensor

from l2l_evograd.bilevel import hypergradient
from l2l_evograd.oracle.measurement import Measurement
from l2l_evograd.oracle.unrolled import Unrolled


def measurement(problem: Problem, deltas: tuple[float, ...] = (0.1,)) -> Measurement:
    ground = Unrolled(
        problem.model,
        problem.inner_loss,
        problem.outer_loss,
        problem.hyperparameters,
        problem.lr,
    )
    return Measurement(ground, deltas, draws=1, seed=0, repeats=1, memory=False)


def test_what_the_outer_loss_has_of_lambda_by_itself_is_not_scaled() -> None:
    def scaled(problem: Problem) -> Tensor:
        found = hypergradient(
            problem.inner_loss,
            problem.outer_loss,
            problem.model,
            problem.hyperparameters,
            update="evolution",
            generator=torch.Generator().manual_seed(0),
        )
        return measurement(problem)._rescaled(found, 100.0)[0]

    direct = quadratic_with_direct_term()
    own = 0.3 * direct.hyperparameters[0].detach()
    torch.testing.assert_close(
        scaled(direct) - own, scaled(quadratic()), rtol=1e-9, atol=1e-15
    )


def test_zero_and_unknown_estimates_move_nothing() -> None:
    measured = measurement(quadratic(), deltas=(0.1, 1.0))
    zero = torch.zeros(3, dtype=torch.float64)
    assert measured._drops([zero]).tolist() == [0, 0]
    assert measured._drops([zero / 0]).isnan().all()
