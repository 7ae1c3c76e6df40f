"""Wrong labels and long tails, drawn from a generator.

Each type of noise is a matrix. Row c contains the probabilities of the label that a
sample of class c gets.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from l2l_evograd.checks import InputError

KINDS = ("uniform", "flip", "flip2")


def corrupt_labels(
    labels: Tensor | Sequence[int],
    kind: str,
    rate: float,
    num_classes: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return labels, some of them wrong, and the matrix from which they were drawn.

    Args:
        labels: true classes, whole numbers from 0 to ``num_classes`` − 1, shape (N,).
        kind: ``"uniform"``: probability rate/C for every class and 1 − rate more for
            the true class, so that a label is wrong with probability rate (C − 1)/C;
            ``"flip"``: one other class with probability rate; ``"flip2"``: two other
            classes with probability rate/2 each. The other classes are drawn for each
            class.
        rate: noise rate between 0 and 1.
        num_classes: C, at least 2, and at least 3 for ``"flip2"``.
        generator: draws the matrix, then the labels; on the CPU.

    Returns:
        Labels of dtype int64, shape (N,), and the matrix of dtype float64, shape
        (C, C), whose rows sum to 1.

    Raises:
        InputError: for other values.

    Source: Shu et al., "Meta-Weight-Net", NeurIPS 2019, section 4, and their code.
    """
    true = check_labels(labels, num_classes)
    matrix = _matrix(kind, rate, num_classes, generator)
    if not len(true):
        return true, matrix
    noisy = torch.multinomial(matrix[true], 1, generator=generator).squeeze(1)
    return noisy, matrix


def long_tail(
    labels: Tensor | Sequence[int],
    factor: float,
    num_classes: int,
    generator: torch.Generator,
) -> Tensor:
    """Return the indices of the samples to keep for a long tail, in ascending order.

    Class c keeps n·factor^(−c/(C−1)) of its samples, where n is the size of the
    largest class. Class 0 keeps all samples; the last class keeps one in ``factor``.

    Args:
        labels: classes, shape (N,).
        factor: size of the first class divided by that of the last, at least 1.
        num_classes: C, at least 2.
        generator: draws the samples within a class; on the CPU.

    Raises:
        InputError: for other values.

    Source: Cui et al., CVPR 2019, section 5.1.
    """
    classes = check_labels(labels, num_classes)
    if not 1 <= factor < float("inf"):
        raise InputError(
            f"expected an imbalance factor of at least 1 (1: balanced), got {factor!r}"
        )
    largest = int(torch.bincount(classes, minlength=num_classes).max())
    kept = []
    for label in range(num_classes):
        members = (classes == label).nonzero().squeeze(1)
        order = torch.randperm(len(members), generator=generator)
        share = factor ** (-label / (num_classes - 1))
        kept.append(members[order[: max(1, round(largest * share))]])
    return torch.cat(kept).sort().values


def check_labels(labels: Tensor | Sequence[int], num_classes: int) -> Tensor:
    """Return labels as an int64 tensor on the CPU.

    Raises:
        InputError: if ``labels`` is not a list of whole numbers.
        InputError: for less than two classes, or labels out of range.
    """
    if num_classes < 2:
        raise InputError(f"expected at least two classes, got {num_classes}")
    tensor = torch.as_tensor(labels).detach().cpu()
    whole = not (tensor.is_floating_point() or tensor.is_complex())
    if tensor.ndim != 1 or (tensor.numel() and not whole):
        raise InputError(
            f"expected labels to be whole numbers in one dimension, got "
            f"{tensor.dtype} of shape {tuple(tensor.shape)}"
        )
    tensor = tensor.long()
    wrong = tensor[(tensor < 0) | (tensor >= num_classes)]
    if len(wrong):
        raise InputError(
            f"expected labels from 0 to {num_classes - 1} for {num_classes} classes, "
            f"got {int(wrong[0])} and {len(wrong) - 1} others out of range"
        )
    return tensor


def check_noise(kind: str, rate: float, num_classes: int | None = None) -> None:
    """Refuse an unknown type of noise, or a rate that is not a probability.

    Raises:
        InputError: with a message that names the valid values.
    """
    if kind not in KINDS:
        raise InputError(f"unknown noise {kind!r}; choose from {', '.join(KINDS)}")
    number = isinstance(rate, int | float) and not isinstance(rate, bool)
    if not number or not 0 <= rate <= 1:
        raise InputError(f"expected a noise rate between 0 and 1, got {rate!r}")
    if kind == "flip2" and num_classes is not None and num_classes < 3:
        raise InputError(
            f"noise 'flip2' needs two other classes: expected at least 3 classes, got "
            f"{num_classes}; use 'flip'"
        )


def _matrix(
    kind: str, rate: float, num_classes: int, generator: torch.Generator
) -> Tensor:
    check_noise(kind, rate, num_classes)
    matrix = (1 - rate) * torch.eye(num_classes, dtype=torch.float64)
    if kind == "uniform":
        return matrix + rate / num_classes
    others = 1 if kind == "flip" else 2
    for label in range(num_classes):
        order = torch.randperm(num_classes - 1, generator=generator)[:others]
        matrix[label, order + (order >= label)] = rate / others
    return matrix
