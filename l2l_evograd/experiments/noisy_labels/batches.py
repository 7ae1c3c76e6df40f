"""The batches of each iteration. They depend only on the seed and the iteration."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import default_collate

from l2l_evograd.checks import InputError
from l2l_evograd.distributed import Processes
from l2l_evograd.seeds import derive_seed, generator_for, seeded


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


class Iterations:
    """The training batch and the meta batch of each iteration.

    Args:
        train: samples to train on.
        meta: samples of the meta set.
        size: size of both batches; that of the data set if it is smaller.
        seed: seed of the orders and of ``augment``.
        augment: function that changes the inputs of each batch; it may draw from
            torch's generators.

    Attributes:
        train: the training batches.
        meta: the meta batches.

    Raises:
        InputError: for an empty data set.
    """

    def __init__(
        self,
        train: Samples,
        meta: Samples,
        size: int,
        seed: int,
        augment: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.train = Batches(train, size, seed, "train")
        self.meta = Batches(meta, size, seed, "meta")
        self._seed = seed
        self._augment = augment

    def check_shares(self, count: int) -> None:
        """Refuse batches that ``count`` processes cannot share equally.

        Raises:
            InputError: with the size of the batch.
        """
        for batches in (self.train, self.meta):
            if batches.size % count:
                raise InputError(
                    f"expected batches that {count} processes can share equally, got "
                    f"{batches.size} samples; change batch_size or devices"
                )

    def draw(
        self, iteration: int, processes: Processes, device: torch.device
    ) -> tuple[Batch, Batch]:
        """Return this process's shares of the training batch and of the meta batch.

        All processes augment the whole batches, as a single process does.
        """
        with seeded(derive_seed(self._seed, "augmentation", iteration), device):
            train, meta = (
                self._share(batches.batch(iteration).to(device), processes)
                for batches in (self.train, self.meta)
            )
        return train, meta

    def indices(self, iteration: int, processes: Processes) -> list[int]:
        """Return the indices of the training samples that :meth:`draw` returns."""
        return self.train.indices(iteration)[processes.rank :: processes.count]

    def _share(self, batch: Batch, processes: Processes) -> Batch:
        inputs = batch.inputs if self._augment is None else self._augment(batch.inputs)
        share = slice(processes.rank, None, processes.count)
        return Batch(inputs[share], batch.labels[share], batch.highest)


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
