import math

import pytest
import torch
from torch import Tensor

from l2l_evograd.experiments.noisy_labels.corruption import (
    KINDS,
    corrupt_labels,
    long_tail,
)

CLASSES, RATE = 5, 0.4
EACH = 4000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labels() -> Tensor:
    return torch.arange(CLASSES).repeat(EACH)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_the_rows_of_the_matrix_are_probabilities(kind: str, rate: float):
    _, matrix = corrupt_labels(labels(), kind, rate, CLASSES, generator())
    assert matrix.shape == (CLASSES, CLASSES)
    assert (matrix >= 0).all()
    assert torch.allclose(matrix.sum(1), torch.ones(CLASSES).double(), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_follow_the_matrix_within_four_standard_errors(kind: str):
    noisy, matrix = corrupt_labels(labels(), kind, RATE, CLASSES, generator())
    for label in range(CLASSES):
        given = torch.bincount(noisy[labels() == label], minlength=CLASSES)
        for other in range(CLASSES):
            p = float(matrix[label, other])
            error = math.sqrt(p * (1 - p) / EACH)
            assert abs(float(given[other]) / EACH - p) <= 4 * error


def test_uniform_noise_may_give_the_true_label_again():
    _, matrix = corrupt_labels(labels(), "uniform", RATE, CLASSES, generator())
    other = RATE / CLASSES
    diagonal = torch.eye(CLASSES, dtype=torch.bool)
    assert matrix[diagonal].tolist() == pytest.approx([1 - RATE + other] * CLASSES)
    assert matrix[~diagonal].tolist() == pytest.approx([other] * 20)


@pytest.mark.parametrize(("kind", "others"), [("flip", 1), ("flip2", 2)])
def test_flips_go_to_few_other_classes(kind: str, others: int):
    _, matrix = corrupt_labels(labels(), kind, RATE, CLASSES, generator())
    for label, row in enumerate(matrix.tolist()):
        assert row.pop(label) == pytest.approx(1 - RATE)
        assert sorted(row)[-others:] == pytest.approx([RATE / others] * others)
        assert sum(value > 0 for value in row) == others


def test_which_classes_are_mixed_up_follows_the_generator():
    first, second = (
        corrupt_labels(labels(), "flip", RATE, CLASSES, generator(seed))[1]
        for seed in (0, 1)
    )
    assert not torch.equal(first, second)


def test_the_same_generator_draws_the_same():
    first, second = (
        corrupt_labels(labels(), "flip2", RATE, CLASSES, generator()) for _ in range(2)
    )
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_no_noise_leaves_the_labels_as_they_are():
    for kind in KINDS:
        noisy, _ = corrupt_labels(labels(), kind, 0.0, CLASSES, generator())
        assert torch.equal(noisy, labels())


def test_labels_may_be_a_list_and_may_be_none():
    noisy, _ = corrupt_labels([0, 1, 2], "uniform", 0.5, 3, generator())
    assert noisy.dtype == torch.int64 and len(noisy) == 3
    assert len(corrupt_labels([], "uniform", 0.5, 3, generator())[0]) == 0


@pytest.mark.parametrize("factor", [1.0, 10.0, 100.0])
def test_a_long_tail_falls_exponentially(factor: float):
    kept = long_tail(labels(), factor, CLASSES, generator())
    counts = torch.bincount(labels()[kept], minlength=CLASSES).tolist()
    expected = [round(EACH * factor ** (-c / (CLASSES - 1))) for c in range(CLASSES)]
    assert counts == expected
    assert len(kept.unique()) == len(kept)


def test_every_class_keeps_a_sample():
    kept = long_tail([0, 1, 2] * 3, 1000.0, 3, generator())
    assert torch.bincount(torch.tensor([0, 1, 2] * 3)[kept]).tolist() == [3, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0, 1], "flip", 1.1, 2), ValueError, "noise rate between 0 and 1, got 1.1"),
        (([0, 1], "flip", -0.1, 2), ValueError, "noise rate between 0 and 1"),
        (([0, 1], "flip", math.nan, 2), ValueError, "noise rate between 0 and 1"),
        (([0, 1], "flip", "half", 2), ValueError, "noise rate between 0 and 1"),
        (([0, 1], "swap", 0.1, 2), ValueError, "unknown noise 'swap'; choose from"),
        (([0, 1], "flip2", 0.1, 2), ValueError, "at least 3 classes, got 2"),
        (([0, 0], "flip", 0.1, 1), ValueError, "at least two classes"),
        (([0, 2], "flip", 0.1, 2), ValueError, "labels from 0 to 1 for 2 classes"),
        (([0, -1], "flip", 0.1, 2), ValueError, "labels from 0 to 1 for 2 classes"),
        (([0.0, 1.0], "flip", 0.1, 2), ValueError, "labels to be whole numbers"),
        (([[0], [1]], "flip", 0.1, 2), ValueError, "labels to be whole numbers"),
    ],
)
def test_bad_input_is_refused(arguments, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        corrupt_labels(*arguments, generator())


@pytest.mark.parametrize("factor", [0.5, math.inf, math.nan])
def test_a_tail_of_no_length_is_refused(factor: float):
    with pytest.raises(ValueError, match="imbalance factor of at least 1"):
        long_tail([0, 1], factor, 2, generator())
