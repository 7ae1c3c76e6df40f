"""Checks say what is wrong, and what to write instead."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from l2l_evograd.checks import (
    Arriving,
    InputError,
    check_choice,
    check_count,
    check_differentiable,
    check_loss,
    check_not_negative,
    check_positive,
    check_seed,
)


def test_good_values_come_back() -> None:
    assert check_positive(2, "x") == 2.0
    assert isinstance(check_positive(np.float32(0.5), "x"), float)
    assert check_not_negative(0, "x") == 0.0
    assert check_count(3, "x", 3) == 3
    assert check_seed(-1) == -1
    check_choice("a", ("a", "b"), "x")
    loss = torch.ones((), requires_grad=True)
    assert check_loss(loss) is loss
    assert check_differentiable(loss) is loss


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, True, "1", None])
def test_what_is_not_positive_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="expected x to be positive and finite, got"):
        check_positive(value, "x")


@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf, True, "1", None])
def test_what_is_negative_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="expected x to be at least 0 and finite"):
        check_not_negative(value, "x")


@pytest.mark.parametrize("value", [1, 2.0, True, "3", None])
def test_what_does_not_count_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="x to be a whole number of at least 2"):
        check_count(value, "x", 2)


@pytest.mark.parametrize("value", [1.0, True, "3", None])
def test_what_is_no_seed_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="expected seed to be a whole number"):
        check_seed(value)


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="expected x to be one of 'a', 'b', got 'c'"):
        check_choice("c", ("a", "b"), "x")


def test_losses_that_are_none_are_refused() -> None:
    with pytest.raises(TypeError, match="the outer loss to be a scalar tensor, got f"):
        check_loss(1.0, "the outer loss")
    with pytest.raises(ValueError, match=r"shape \(2,\); reduce it"):
        check_loss(torch.ones(2))
    with pytest.raises(ValueError, match="to be finite, got nan"):
        check_loss(torch.tensor(math.nan))
    with pytest.raises(ValueError, match="does not require grad"):
        check_differentiable(torch.ones(()))


class Happening:
    """An event that has happened when it is waited for, or when the test says so."""

    def __init__(self):
        self.happened = False

    def query(self):
        return self.happened

    def synchronize(self):
        self.happened = True


def arriving(*values, most=64):
    queue, events = Arriving(most), [Happening() for _ in values]
    for value, event in zip(values, events, strict=True):
        queue.add(torch.tensor(value), event, "the inner loss")
    return queue, events


def test_values_of_a_device_are_checked_when_they_have_arrived():
    queue, (first, second) = arriving(1.0, math.nan)
    second.happened = True
    queue.check()  # the first is still on its way
    first.happened = True
    with pytest.raises(InputError, match="inner loss of an earlier step to be finite"):
        queue.check()
    queue.check()  # is reported once


def test_a_value_of_a_device_is_waited_for_if_there_are_many():
    queue, events = arriving(math.inf, 1.0, 1.0, most=3)
    with pytest.raises(InputError, match="got inf"):
        queue.check()
    assert [event.happened for event in events] == [True, False, False]
