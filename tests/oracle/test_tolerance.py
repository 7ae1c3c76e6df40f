"""Tolerances: usual ones, standard errors, and what counts as wrong."""

import math

import pytest
import torch
from torch import Tensor

from l2l_evograd import EvoGrad, Exact, Guided
from l2l_evograd.oracle.tolerance import (
    lowest_precision,
    quantities,
    usual_rtol,
)

ONE = torch.ones(3, dtype=torch.float64)


def normal(count: int, size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, generator=generator, dtype=torch.float64)


def test_usual_tolerances_follow_precision_and_difference() -> None:
    assert usual_rtol(Exact(), "gradient", torch.float64) == 1e-7
    assert usual_rtol(EvoGrad(), "evolution", torch.float64) == 1e-7
    assert usual_rtol(Exact(), "gradient", torch.float32) == 1e-3
    assert usual_rtol(Exact(), "gradient", torch.bfloat16) == 0.1
    central = usual_rtol(Guided(h=0.01), "gradient", torch.float64)
    assert central == pytest.approx(1e-3, rel=1e-3)
    forward = usual_rtol(Guided(0.01, "forward"), "gradient", torch.float64)
    assert forward == pytest.approx(0.1, rel=1e-3)
    sampled = usual_rtol(EvoGrad(sigma=0.1), "gradient", torch.float64)
    assert sampled == pytest.approx(0.1, rel=1e-3)
    # In float32 a small h drowns in rounding.
    assert usual_rtol(Guided(h=1e-4), "gradient", torch.float32) > 0.1


def test_the_lowest_precision_counts() -> None:
    tensors = [torch.ones(1, dtype=kind) for kind in (torch.float64, torch.float32)]
    assert lowest_precision(tensors) == torch.float32
    assert lowest_precision(tensors[:1]) == torch.float64
    assert lowest_precision([torch.ones(1, dtype=torch.complex128)]) == torch.float64


def test_what_is_not_random_is_compared_entry_by_entry() -> None:
    found = ONE + torch.tensor([0.0, 0.05, -0.2])
    compared = quantities(found[None], ONE, 0.1 * ONE, random=False)
    assert compared.wrong.tolist() == [False, False, True]
    assert compared.excess.tolist() == pytest.approx([0, 0.5, 2])
    assert not compared.undecided
    assert quantities(ONE[None], ONE, ONE, random=False).undecided


def test_nothing_allowed_and_nothing_needed_is_right() -> None:
    compared = quantities(ONE[None], ONE, 0 * ONE, random=False)
    assert not compared.wrong.any()
    off = quantities(ONE[None] + 1e-9, ONE, 0 * ONE, random=False)
    assert off.wrong.all()


def test_what_is_no_number_is_wrong() -> None:
    for value in (math.nan, math.inf):
        found = torch.full((1, 3), value, dtype=torch.float64)
        assert quantities(found, ONE, ONE, random=False).wrong.all()


def test_means_of_draws_may_be_off_by_standard_errors() -> None:
    draws = ONE + normal(100, 3)
    compared = quantities(draws, ONE, 0.1 * ONE, random=True)
    assert len(compared.expected) == 4
    assert float(compared.expected[3]) == pytest.approx(math.sqrt(3))
    errors = draws.std(dim=0) / 10
    torch.testing.assert_close(compared.errors[:3], errors)
    torch.testing.assert_close(compared.allowed[:3], 0.1 + 4 * errors)
    # The projection is (x + y + z)/√3 here.
    torch.testing.assert_close(compared.found[3], draws.mean(0).sum() / math.sqrt(3))
    assert not compared.wrong.any()


def test_the_projection_finds_a_wrong_size_below_the_noise_of_entries() -> None:
    exact = torch.ones(400, dtype=torch.float64) / 4
    draws = 2 * exact + normal(100, 400)
    compared = quantities(draws, exact, 0 * exact, random=True)
    assert bool(compared.wrong[400])
    assert int(compared.wrong[:400].sum()) < 40


def test_false_alarms_are_rare_however_many_entries_there_are() -> None:
    # 500 right estimates of 50 entries at 1 in 1,000 each: more than 4 false alarms
    # have a chance of 1 in 5,000. With 2 standard errors nearly all would fail.
    exact = torch.ones(50, dtype=torch.float64)
    alarms = sum(
        bool(
            quantities(
                exact + normal(256, 50, seed), exact, 0 * exact, True
            ).wrong.any()
        )
        for seed in range(500)
    )
    assert alarms <= 4
    assert quantities(exact + normal(30, 50), exact, exact, True).factor > 4.2


def test_an_exact_answer_of_zero_has_no_direction() -> None:
    compared = quantities(normal(64, 3), 0 * ONE, 0 * ONE, random=True)
    assert len(compared.expected) == 3
