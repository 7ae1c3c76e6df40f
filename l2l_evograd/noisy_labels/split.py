"""Which images are for training, with what labels, and which are the clean meta set.

All of it follows from one seed, in one place: a meta set drawn from one seed and a
training set from another would share images.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from l2l_evograd.noisy_labels.corruption import (
    check_labels,
    corrupt_labels,
    long_tail,
)
from l2l_evograd.runs.randomness import derive_seed


class MetaSplit(NamedTuple):
    """What :func:`split_meta` returns.

    Attributes:
        train: indices of the images to train on, ascending.
        meta: indices of the meta set, ascending; none of them is in ``train``.
    """

    train: Tensor
    meta: Tensor


@dataclass(frozen=True)
class NoisySplit:
    """A training set with wrong labels, and a clean one.

    Attributes:
        train: indices of the images to train on, ascending.
        labels: what they are said to be, shape (len(train),).
        corrupted: whether that is wrong, likewise.
        meta: indices of the balanced meta set, whose labels are right.
        matrix: row c: probabilities of the label given to class c.
    """

    train: Tensor
    labels: Tensor
    corrupted: Tensor
    meta: Tensor
    matrix: Tensor


def split_meta(labels: Tensor, num_meta: int, num_classes: int, seed: int) -> MetaSplit:
    """Draw a balanced meta set and return it and the rest.

    Args:
        labels: true classes from 0 to ``num_classes`` − 1, shape (N,).
        num_meta: size of the meta set, a multiple of ``num_classes``.
        num_classes: at least 2.
        seed: of the choice.

    Raises:
        ValueError: for a meta set that is not balanced, or leaves nothing to train on.
    """
    classes = check_labels(labels, num_classes)
    if num_meta < 1 or num_meta % num_classes:
        raise ValueError(
            f"expected a balanced meta set: a multiple of the {num_classes} classes, "
            f"got {num_meta}"
        )
    each = num_meta // num_classes
    smallest = int(torch.bincount(classes, minlength=num_classes).min())
    if num_meta >= len(classes) or each > smallest:
        raise ValueError(
            f"a meta set of {num_meta} takes {each} images of each class and has to "
            f"leave some to train on, but there are {len(classes)} images, and "
            f"{smallest} of the smallest class; make it smaller"
        )
    generator = _generator(seed, "meta")
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
    """Draw the meta set, then what is trained on, then its wrong labels.

    Args:
        labels: true classes, shape (N,).
        num_classes: at least 2.
        num_meta: as for :func:`split_meta`.
        noise: kind and
        rate: of :func:`~l2l_evograd.noisy_labels.corrupt_labels`.
        seed: of everything.
        train_images: how many images to keep for training; None: all.
        imbalance: factor of :func:`~l2l_evograd.noisy_labels.long_tail`; 1: none.

    Raises:
        ValueError: as those do, or for more images than there are.
    """
    true = check_labels(labels, num_classes)
    train, meta = split_meta(true, num_meta, num_classes, seed)
    if train_images is not None:
        if not 1 <= train_images <= len(train):
            raise ValueError(
                f"expected to train on 1 to {len(train)} images, those besides the "
                f"meta set, got {train_images}"
            )
        order = torch.randperm(len(train), generator=_generator(seed, "subset"))
        train = train[order[:train_images]].sort().values
    if imbalance != 1:
        tail = _generator(seed, "tail")
        train = train[long_tail(true[train], imbalance, num_classes, tail)]
    noisy, matrix = corrupt_labels(
        true[train], noise, rate, num_classes, _generator(seed, "noise")
    )
    return NoisySplit(train, noisy, noisy != true[train], meta, matrix)


def _generator(seed: int, purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, purpose))
