"""The batches of each iteration. They depend only on the seed and the iteration."""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import default_collate

from l2l_evograd.checks import InputError
from l2l_evograd.seeds import generator_for


class Samples(Protocol):
    """A data set of inputs and class numbers, such as ``TensorDataset(x, y)``."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: int) -> Any:
        """Return an input and its class."""
        ...


class Batch(NamedTuple):
    """Inputs and labels of some samples.

    Attributes:
        inputs: shape (N, ...).
        labels: shape (N,), dtype int64.
        highest: highest of the labels.
    """

    inputs: Tensor
    labels: Tensor
    highest: int

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        return Batch(self.inputs.to(device), self.labels.to(device), self.highest)


class Batches:
    """Passes over a data set, each in a different order.

    Args:
        samples: the data set.
        size: size of a batch; the size of the data set if that is smaller. A pass
            leaves out its last samples if they do not fill a batch.
        seed: seed of the orders.
        purpose: name that makes the orders of two data sets differ.

    Attributes:
        size: size of every batch.

    Raises:
        InputError: for an empty data set.
    """

    def __init__(self, samples: Samples, size: int, seed: int, purpose: str) -> None:
        if not len(samples):
            raise InputError(f"expected samples to learn from ({purpose}), got none")
        self._samples = samples
        self.size = min(size, len(samples))
        self._seed = seed
        self._purpose = purpose
        self._order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        """Return the number of batches of one pass."""
        return len(self._samples) // self.size

    def indices(self, iteration: int) -> list[int]:
        """Return the indices of the samples of an iteration."""
        number, position = divmod(iteration, len(self))
        if self._order[0] != number:
            generator = generator_for(self._seed, self._purpose, number)
            order = torch.randperm(len(self._samples), generator=generator)
            self._order = number, order.tolist()
        start = position * self.size
        return self._order[1][start : start + self.size]

    def batch(self, iteration: int) -> Batch:
        """Return the batch of an iteration, on the CPU."""
        return collate(self._samples, self.indices(iteration))


def collate(samples: Samples, indices: list[int]) -> Batch:
    """Return some samples as one batch, on the CPU.

    Raises:
        InputError: for a label that is negative or not a number.
    """
    inputs, labels = default_collate([samples[index] for index in indices])
    if not isinstance(labels, Tensor) or labels.ndim != 1:
        raise InputError(
            f"expected one class number for each sample, got {labels!r:.60}; use a "
            f"data set of samples (input, class)"
        )
    if int(labels.min()) < 0:
        raise InputError(
            f"expected labels from 0 on, got {int(labels.min())}; number the classes "
            f"from 0"
        )
    return Batch(inputs, labels.long(), int(labels.max()))
