import pytest
import torch
from torch import Tensor

from l2l_evograd.experiments.noisy_labels.split import draw_split, split_meta

CLASSES = 4


def labels(each: int = 30) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    order = torch.randperm(CLASSES * each, generator=generator)
    return torch.arange(CLASSES).repeat(each)[order]


def drawn(seed: int = 0, **changes: object):
    options = {"num_meta": 20, "noise": "flip2", "rate": 0.4, "seed": seed}
    return draw_split(labels(), CLASSES, **{**options, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(20))
def test_no_image_is_in_both_sets_whatever_the_seed(seed: int):
    train, meta = split_meta(labels(), 20, CLASSES, seed)
    assert not set(train.tolist()) & set(meta.tolist())
    assert sorted([*train.tolist(), *meta.tolist()]) == list(range(len(labels())))
    split = drawn(seed, imbalance=3.0, train_images=60)
    assert torch.equal(split.meta, meta)
    assert not set(split.train.tolist()) & set(meta.tolist())


@pytest.mark.parametrize("seed", [0, 7])
def test_the_meta_set_is_balanced(seed: int):
    meta = split_meta(labels(), 20, CLASSES, seed).meta
    assert torch.bincount(labels()[meta]).tolist() == [5] * CLASSES


def test_the_seed_draws_the_split_and_the_noise():
    first, again, other = drawn(0), drawn(0), drawn(1)
    assert torch.equal(first.meta, again.meta)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.meta, other.meta)
    assert not torch.equal(first.matrix, other.matrix)


def test_what_is_corrupted_is_known():
    split = drawn()
    wrong = split.labels != labels()[split.train]
    assert torch.equal(split.corrupted, wrong)
    assert 0 < int(wrong.sum()) < len(wrong)


def test_fewer_images_are_a_part_of_all():
    few, everything = drawn(train_images=40), drawn()
    assert len(few.train) == 40
    assert set(few.train.tolist()) < set(everything.train.tolist())


def test_a_long_tail_is_cut_before_the_labels_are_made_wrong():
    split = drawn(imbalance=5.0)
    counts = torch.bincount(labels()[split.train], minlength=CLASSES).tolist()
    assert counts == [25, 15, 9, 5]
    assert len(split.labels) == sum(counts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_meta": 18}, "a multiple of the 4 classes, got 18"),
        ({"num_meta": 0}, "a multiple of the 4 classes, got 0"),
        ({"num_meta": 120}, "must leave images for training"),
        ({"num_meta": 4000}, "takes 1000 images of each class"),
        ({"train_images": 101}, "train on 1 to 100 images"),
        ({"noise": "swap"}, "unknown noise 'swap'"),
        ({"rate": 2.0}, "noise rate between 0 and 1"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        drawn(**changes)


def test_a_class_too_small_for_the_meta_set_is_refused():
    with pytest.raises(ValueError, match="1 in the smallest class"):
        split_meta(torch.tensor([0] * 20 + [1]), 4, 2, 0)
