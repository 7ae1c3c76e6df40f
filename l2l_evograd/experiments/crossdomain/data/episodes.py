"""Few-shot episodes, drawn by learn2learn's ``MetaDataset`` and ``Taskset``."""

from collections import Counter, defaultdict
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from l2l_evograd.checks import InputError, check_count
from l2l_evograd.experiments.from_learn2learn import (
    ConsecutiveLabels,
    KShots,
    LoadData,
    MetaDataset,
    NWays,
    RemapLabels,
    Taskset,
)
from l2l_evograd.seeds import python_seeded


class Labelled(Protocol):
    """A data set from which episodes are drawn: images or features with labels."""

    @property
    def labels(self) -> list[int]:
        """The class of each item."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...


class Episode(NamedTuple):
    """A few-shot task.

    Attributes:
        support_x: shape (ways · shots, ...).
        support_y: shape (ways · shots,), values 0 to ways − 1.
        query_x: shape (ways · queries, ...).
        query_y: shape (ways · queries,), values 0 to ways − 1.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor

    def to(self, device: torch.device) -> "Episode":
        """Return the episode on ``device``."""
        return Episode(*(tensor.to(device) for tensor in self))


def make_taskset(
    dataset: Labelled, ways: int, samples: int, num_tasks: int = -1, **options: Any
) -> Taskset:
    """Return learn2learn's tasks over a data set. Items of a class are side by side.

    Args:
        dataset: images or features. Its labels are read from ``labels``, so no image
            has to be decoded.
        ways: number of classes of a task.
        samples: number of items of each class.
        num_tasks: number of tasks; -1: unlimited.
        **options: further arguments of ``Taskset``.
    """
    by_label: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(dataset.labels):
        by_label[label].append(index)
    meta = MetaDataset(
        dataset,
        labels_to_indices=by_label,
        indices_to_labels=defaultdict(int, enumerate(dataset.labels)),
    )
    # NWays comes first, because from Python 3.11 on learn2learn's NWays fails after
    # other transforms.
    transforms: list[Any] = [
        NWays(meta, ways),
        KShots(meta, samples),
        LoadData(meta),
        RemapLabels(meta),
        ConsecutiveLabels(meta),
    ]
    return Taskset(meta, task_transforms=transforms, num_tasks=num_tasks, **options)


class EpisodeSampler:
    """Draws episodes from a data set.

    Args:
        dataset: images or features. Its labels are read from ``labels``, so no image
            has to be decoded.
        ways: number of classes of an episode.
        shots: number of support items of each class.
        queries: number of query items of each class.

    Raises:
        InputError: if the data set has too few classes, or too few items of a class.
    """

    def __init__(self, dataset: Labelled, ways: int, shots: int, queries: int) -> None:
        for name, count in {"ways": ways, "shots": shots, "queries": queries}.items():
            check_count(count, name)
        check_enough(
            dataset, ways, shots + queries, f"{shots} shots and {queries} queries"
        )
        self.ways, self.shots, self.queries = ways, shots, queries
        self._tasks = make_taskset(dataset, ways, shots + queries)

    def sample(self, seed: int) -> Episode:
        """Return the episode of ``seed``. Random states do not change."""
        with python_seeded(seed):  # learn2learn draws from Python's global generator
            data, labels = self._tasks.sample()
        each = self.shots + self.queries
        # ConsecutiveLabels puts the items of a class side by side.
        by_class = data.view(self.ways, each, *data.shape[1:])
        named = labels.view(self.ways, each)
        return Episode(
            by_class[:, : self.shots].flatten(0, 1),
            named[:, : self.shots].flatten(),
            by_class[:, self.shots :].flatten(0, 1),
            named[:, self.shots :].flatten(),
        )


def check_enough(
    dataset: Labelled,
    ways: int,
    samples: int,
    meaning: str,
    lower: tuple[str, str] = ("the ways", "them together"),
) -> None:
    """Refuse a data set with too few classes, or too few items of a class.

    Args:
        dataset: data set from which tasks are drawn.
        ways: number of classes of a task.
        samples: number of items of each class.
        meaning: text that explains ``samples``.
        lower: names of the settings to lower if there are too few classes, and if
            there are too few items.
    """
    place = getattr(dataset, "name", "the data set")
    counts = Counter(dataset.labels)
    if len(counts) < ways:
        raise InputError(
            f"{place} has {len(counts)} classes, too few for {ways} ways: lower "
            f"{lower[0]} to {len(counts)} or add classes"
        )
    label, least = min(counts.items(), key=lambda item: item[1])
    if least < samples:
        names = getattr(dataset, "label_names", None)
        raise InputError(
            f"class {names[label] if names else label!r} of {place} has {least} "
            f"images, too few for {meaning}: lower {lower[1]} to {least} or add images"
        )
