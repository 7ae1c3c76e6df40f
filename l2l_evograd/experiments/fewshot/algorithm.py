"""What the few-shot experiment needs of a meta-learning algorithm."""

import abc
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Batch = tuple[Tensor, Tensor]


class Lesson(NamedTuple):
    """The data of one task of meta-training.

    Attributes:
        inner: images and labels of each inner step.
        query: images and labels of the outer loss; None for the family reptile.
    """

    inner: Sequence[Batch]
    query: Batch | None = None

    def to(self, device: torch.device) -> "Lesson":
        """Return the lesson on ``device``."""
        query = None if self.query is None else _moved(self.query, device)
        return Lesson([_moved(batch, device) for batch in self.inner], query)


class Algorithm(nn.Module, abc.ABC):
    """A meta-learning algorithm. Its parameters and buffers are what it learns."""

    @abc.abstractmethod
    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer of the meta-steps."""

    def begin(self, seed: int) -> None:
        """Start a meta-iteration, whose random numbers depend on ``seed`` alone."""
        return

    @abc.abstractmethod
    def learn(self, lesson: Lesson, share: float) -> Tensor:
        """Add ``share`` times the meta-gradient of a task to ``.grad``.

        Returns:
            The task's loss: of the query images, or of the last inner step.
        """

    @abc.abstractmethod
    def learner(self) -> Any:
        """Return an object to adapt to a task of the test, by ``adapt(loss)``."""


def loss_of(learner: Any, batch: Batch) -> Tensor:
    """Return the mean cross entropy of a learner on images and labels."""
    images, labels = batch
    return functional.cross_entropy(learner(images), labels)


def adapt(learner: Any, lesson: Lesson) -> Tensor:
    """Make the inner steps of a lesson, and return the loss before the last step."""
    for batch in lesson.inner:
        loss = loss_of(learner, batch)
        learner.adapt(loss)
    return loss.detach()


def learn_from_query(learner: Any, lesson: Lesson, share: float) -> Tensor:
    """Adapt, differentiate ``share`` times the query loss, and return that loss."""
    adapt(learner, lesson)
    loss = loss_of(learner, query_of(lesson))
    (share * loss).backward()
    return loss.detach()


def query_of(lesson: Lesson) -> Batch:
    """Return the query images and labels of a lesson, which must have them."""
    assert lesson.query is not None  # only the family reptile does without
    return lesson.query


def _moved(batch: Batch, device: torch.device) -> Batch:
    return batch[0].to(device), batch[1].to(device)
