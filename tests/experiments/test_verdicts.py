"""A difference between methods, and the sentence about it."""

import math

import pytest

from l2l_evograd.experiments.verdicts import Difference, difference, sentence


def test_differences_are_paired_by_seed() -> None:
    found = difference([0.5, 0.7, 0.9], [0.4, 0.5, 0.6])
    assert found.mean == pytest.approx(0.2)
    # The standard deviation of 0.1, 0.2 and 0.3 is 0.1.
    assert found.error == pytest.approx(0.1 / math.sqrt(3))
    assert found.seeds == 3


@pytest.mark.parametrize(
    ("mean", "error", "seeds", "shown"),
    [
        (0.031, 0.009, 5, True),
        (-0.031, 0.009, 5, True),
        # Student's t for 95 % is 2.776 with five seeds and 4.303 with three.
        (0.0277, 0.01, 5, False),
        (0.0278, 0.01, 5, True),
        (0.0430, 0.01, 3, False),
        (0.0431, 0.01, 3, True),
        (0.002, 0.006, 5, False),
        (0.5, 0.0, 2, False),  # too few seeds for any size of the difference
        (0.5, 0.0, 1, False),
        (0.0, 0.0, 5, False),
        (0.02, 0.0, 3, False),  # equal differences on a coarse grid
        (math.nan, math.nan, 5, False),
    ],
)
def test_what_counts_as_shown(
    mean: float, error: float, seeds: int, shown: bool
) -> None:
    assert Difference(mean, error, seeds).shown is shown


def test_sentences() -> None:
    assert sentence("ft", "none", Difference(0.031, 0.009, 5)) == (
        "Over 5 seeds, ft is 3.1 ± 0.9 points above none (mean ± standard error, "
        "paired by seed): shown."
    )
    assert "3.1 ± 0.9 points below none" in sentence(
        "ft", "none", Difference(-0.031, 0.009, 5)
    )
    assert sentence("lft-guided", "ft", Difference(-0.002, 0.006, 4)) == (
        "lft-guided against ft: -0.2 ± 0.6 points over 4 seeds: not shown."
    )


@pytest.mark.parametrize(("seeds", "words"), [(1, "1 seed:"), (2, "2 seeds:")])
def test_one_or_two_seeds_say_nothing_about_others(seeds: int, words: str) -> None:
    text = sentence("ft", "none", Difference(0.5, 0.0, seeds))
    assert f"+50.0 points over {words} nothing can be said about other seeds" in text
    assert "shown" not in text


def test_refuses_what_is_no_accuracy() -> None:
    with pytest.raises(ValueError, match="finite accuracies, got"):
        difference([math.nan, 0.5], [0.5, 0.5])


@pytest.mark.parametrize(("own", "other"), [([], []), ([0.1, 0.2], [0.1])])
def test_refuses_seeds_without_a_partner(own: list[float], other: list[float]) -> None:
    with pytest.raises(ValueError, match="both methods have"):
        difference(own, other)
