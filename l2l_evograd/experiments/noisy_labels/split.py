"""The split of the images into a training set with wrong labels and a clean meta set.

One function draws both sets from one seed. If they were drawn from different seeds,
they would share images.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.noisy_labels.corruption import (
    check_labels,
    corrupt_labels,
    long_tail,
)
from l2l_evograd.seeds import generator_for


class MetaSplit(NamedTuple):
    """What :func:`split_meta` returns.

    Attributes:
        train: indices of the training images, ascending.
        meta: indices of the meta set, ascending; none of them is in ``train``.
    """

    train: Tensor
    meta: Tensor


@dataclass(frozen=True)
class NoisySplit:
    """A training set with wrong labels, and a clean meta set.

    Attributes:
        train: indices of the training images, ascending.
        labels: labels of the training images, some of them wrong, shape
            (len(train),).
        corrupted: whether each label is wrong, shape (len(train),).
        meta: indices of the balanced meta set, whose labels are right.
        matrix: row c contains the probabilities of the label that class c gets.
    """

    train: Tensor
    labels: Tensor
    corrupted: Tensor
    meta: Tensor
    matrix: Tensor


def split_meta(labels: Tensor, num_meta: int, num_classes: int, seed: int) -> MetaSplit:
    """Draw a balanced meta set, and return it and the remaining images.

    Args:
        labels: true classes from 0 to ``num_classes`` − 1, shape (N,).
        num_meta: size of the meta set, a multiple of ``num_classes``.
        num_classes: number of classes, at least 2.
        seed: seed of the draw.

    Raises:
        InputError: if the meta set would not be balanced, or would leave no images for
            training.
    """
    classes = check_labels(labels, num_classes)
    if num_meta < 1 or num_meta % num_classes:
        raise InputError(
            f"the meta set is balanced: expected its size to be a multiple of the "
            f"{num_classes} classes, got {num_meta}"
        )
    each = num_meta // num_classes
    smallest = int(torch.bincount(classes, minlength=num_classes).min())
    if num_meta >= len(classes) or each > smallest:
        raise InputError(
            f"a meta set of {num_meta} takes {each} images of each class and must "
            f"leave images for training, but there are {len(classes)} images, and "
            f"{smallest} in the smallest class; choose a smaller meta set"
        )
    generator = generator_for(seed, "meta")
    chosen = torch.zeros(len(classes), dtype=torch.bool)
    for label in range(num_classes):
        members = (classes == label).nonzero().squeeze(1)
        order = torch.randperm(len(members), generator=generator)
        chosen[members[order[:each]]] = True
    return MetaSplit((~chosen).nonzero().squeeze(1), chosen.nonzero().squeeze(1))


def draw_split(
    labels: Tensor,
    num_classes: int,
    *,
    num_meta: int,
    noise: str,
    rate: float,
    seed: int,
    train_images: int | None = None,
    imbalance: float = 1.0,
) -> NoisySplit:
    """Draw the meta set, then the training images, then their wrong labels.

    Args:
        labels: true classes, shape (N,).
        num_classes: number of classes, at least 2.
        num_meta: size of the meta set, as for :func:`split_meta`.
        noise: argument ``kind`` of :func:`~.corruption.corrupt_labels`.
        rate: argument ``rate`` of :func:`~.corruption.corrupt_labels`.
        seed: seed of all draws.
        train_images: number of images to keep for training; None: all.
        imbalance: factor of :func:`~.corruption.long_tail`; 1: no long tail.

    Raises:
        InputError: for values that these functions refuse, or if there are fewer than
            ``train_images`` images.
    """
    true = check_labels(labels, num_classes)
    train, meta = split_meta(true, num_meta, num_classes, seed)
    if train_images is not None:
        if not 1 <= train_images <= len(train):
            raise InputError(
                f"expected to train on 1 to {len(train)} images, those outside the "
                f"meta set, got {train_images}"
            )
        order = torch.randperm(len(train), generator=generator_for(seed, "subset"))
        train = train[order[:train_images]].sort().values
    if imbalance != 1:
        tail = generator_for(seed, "tail")
        train = train[long_tail(true[train], imbalance, num_classes, tail)]
    noisy, matrix = corrupt_labels(
        true[train], noise, rate, num_classes, generator_for(seed, "noise")
    )
    return NoisySplit(train, noisy, noisy != true[train], meta, matrix)
