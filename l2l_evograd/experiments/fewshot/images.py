"""Images by class, kept in memory, and the few-shot tasks drawn from them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from l2l_evograd.experiments.crossdomain.data.episodes import check_enough
from l2l_evograd.seeds import generator_for


@dataclass(frozen=True)
class ClassImages:
    """The images of one split.

    Attributes:
        name: name of the split, for messages.
        images: bytes, shape (N, channels, S, S), dtype uint8.
        labels: class of each image, an index into ``label_names``.
        label_names: names of the classes.
        mean: what is subtracted from the images / 255, one number for each channel.
        deviation: what they are divided by afterwards.
    """

    name: str
    images: Tensor
    labels: list[int]
    label_names: Sequence[str]
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a normalised image, shape (channels, S, S), and its class."""
        return self.of(torch.tensor([index]))[0], self.labels[index]

    def of(self, indices: Tensor) -> Tensor:
        """Return normalised images, shape (number of indices, channels, S, S)."""
        mean = torch.tensor(self.mean).view(1, -1, 1, 1)
        deviation = torch.tensor(self.deviation).view(1, -1, 1, 1)
        return (self.images[indices].float() / 255 - mean) / deviation


class Problem(NamedTuple):
    """A few-shot problem. No class is in two splits.

    Attributes:
        name: where the images come from; shown to the user.
        train: images for meta-training.
        validation: images for the curve of accuracy during meta-training.
        test: images for the test.
    """

    name: str
    train: ClassImages
    validation: ClassImages
    test: ClassImages

    @property
    def shape(self) -> tuple[int, int]:
        """Number of channels, and side in pixels."""
        return self.train.images.shape[1], self.train.images.shape[2]


class Task(NamedTuple):
    """A few-shot task.

    Attributes:
        support_x, support_y: images and labels for adaptation, in the order of the
            classes.
        query_x, query_y: images and labels for the loss or accuracy after it.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor

    def to(self, device: torch.device) -> "Task":
        """Return the task on ``device``."""
        return Task(*(tensor.to(device) for tensor in self))


class Tasks:
    """Numbered tasks. A task depends only on the split, the seed and its number.

    Classes and the order of their images are drawn first. Two streams with the same
    seed, of other numbers of shots and queries, therefore have tasks of the same
    classes, and the images of one are the first images of the other.

    Args:
        source: images of one split.
        ways: number of classes of a task.
        shots: number of support images of each class.
        queries: number of query images of each class.
        seed: seed of all draws.
        lower: names of the settings to lower if there are too few classes or images.

    Raises:
        InputError: if there are too few classes, or too few images of a class.
    """

    def __init__(
        self,
        source: ClassImages,
        ways: int,
        shots: int,
        queries: int,
        seed: int,
        lower: tuple[str, str] = ("the ways", "them together"),
    ) -> None:
        meaning = f"{shots} shots"
        if queries:
            meaning += f" and {queries} queries"
        check_enough(source, ways, shots + queries, meaning, lower)
        self._source, self._seed = source, seed
        self._ways, self._shots, self._queries = ways, shots, queries
        by_class: dict[int, list[int]] = defaultdict(list)
        for index, label in enumerate(source.labels):
            by_class[label].append(index)
        self._classes = [torch.tensor(by_class[label]) for label in sorted(by_class)]

    def task(self, number: int) -> Task:
        """Return a task, on the CPU. Random states do not change."""
        generator = generator_for(self._seed, "task", number)
        chosen = torch.randperm(len(self._classes), generator=generator)[: self._ways]
        drawn = []
        for label in chosen.tolist():
            own = self._classes[label]
            drawn.append(own[torch.randperm(len(own), generator=generator)])
        shots, each = self._shots, self._shots + self._queries
        support = torch.cat([own[:shots] for own in drawn])
        query = torch.cat([own[shots:each] for own in drawn])
        labels = torch.arange(self._ways)
        return Task(
            self._source.of(support),
            labels.repeat_interleave(shots),
            self._source.of(query),
            labels.repeat_interleave(self._queries),
        )

    def minibatches(
        self, number: int, size: int, count: int
    ) -> list[tuple[Tensor, Tensor]]:
        """Return minibatches of a task's support images, on the CPU.

        They are taken from passes over the images, each in an order of its own. A pass
        ends before a minibatch that it could not fill.
        """
        images, labels = self.task(number)[:2]
        generator = generator_for(self._seed, "minibatches", number)
        found: list[tuple[Tensor, Tensor]] = []
        while len(found) < count:
            order = torch.randperm(len(labels), generator=generator)
            for start in range(0, len(labels) - size + 1, size):
                part = order[start : start + size]
                found.append((images[part], labels[part]))
        return found[:count]
