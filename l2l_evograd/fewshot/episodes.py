"""Few-shot episodes, drawn by learn2learn's ``MetaDataset`` and ``Taskset``."""

import contextlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from learn2learn.data import MetaDataset, Taskset
from learn2learn.data.transforms import (
    ConsecutiveLabels,
    KShots,
    LoadData,
    NWays,
    RemapLabels,
)
from torch import Tensor


class Labelled(Protocol):
    """What episodes are drawn from: images or features with labels."""

    labels: list[int]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...


class Episode(NamedTuple):
    """A few-shot task.

    Attributes:
        support_x: (ways · shots, ...).
        support_y: (ways · shots,), 0 to ways − 1.
        query_x: (ways · queries, ...).
        query_y: (ways · queries,), 0 to ways − 1.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor


def make_taskset(
    dataset: Labelled, ways: int, samples: int, num_tasks: int = -1, **options: Any
) -> Taskset:
    """Return learn2learn's tasks over a data set, the items of a class side by side.

    Args:
        dataset: images or features; its labels are read from ``labels``, not by
            decoding it.
        ways: classes of a task.
        samples: items of each class.
        num_tasks: how many tasks there are; -1: no end.
        **options: of ``Taskset``.
    """
    by_label: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(dataset.labels):
        by_label[label].append(index)
    meta = MetaDataset(
        dataset,
        labels_to_indices=by_label,
        indices_to_labels=defaultdict(int, enumerate(dataset.labels)),
    )
    # Classes first: learn2learn's NWays fails behind other transforms from Python
    # 3.11 on.
    transforms: list[Any] = [
        NWays(meta, ways),
        KShots(meta, samples),
        LoadData(meta),
        RemapLabels(meta),
        ConsecutiveLabels(meta),
    ]
    return Taskset(meta, task_transforms=transforms, num_tasks=num_tasks, **options)


class EpisodeSampler:
    """Draw episodes from a data set.

    Args:
        dataset: images or features; its labels are read from ``labels``, not by
            decoding it.
        ways: classes of an episode.
        shots: support items of a class.
        queries: query items of a class.

    Raises:
        ValueError: if the data set has too few classes, or too few items of one.
    """

    def __init__(self, dataset: Labelled, ways: int, shots: int, queries: int) -> None:
        check_counts({"ways": ways, "shots": shots, "queries": queries})
        check_enough(
            dataset, ways, shots + queries, f"{shots} shots and {queries} queries"
        )
        self.ways, self.shots, self.queries = ways, shots, queries
        self._tasks = make_taskset(dataset, ways, shots + queries)

    def sample(self, seed: int) -> Episode:
        """Return the episode that belongs to ``seed``.

        Python's random state is as before afterwards; torch's is not used.
        """
        with _seeded(seed):
            data, labels = self._tasks.sample()
        each = self.shots + self.queries
        # ConsecutiveLabels has put the items of a class side by side.
        by_class = data.view(self.ways, each, *data.shape[1:])
        named = labels.view(self.ways, each)
        return Episode(
            by_class[:, : self.shots].flatten(0, 1),
            named[:, : self.shots].flatten(),
            by_class[:, self.shots :].flatten(0, 1),
            named[:, self.shots :].flatten(),
        )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    # learn2learn draws from Python's global generator.
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def check_counts(counts: Mapping[str, int]) -> None:
    """Refuse numbers below 1, given by the names of their arguments."""
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"expected {name} of at least 1, got {value}")


def check_enough(
    dataset: Labelled,
    ways: int,
    samples: int,
    meaning: str,
    lower: tuple[str, str] = ("the ways", "them together"),
) -> None:
    """Refuse a data set with too few classes, or too few items of one.

    Args:
        dataset: what tasks are drawn from.
        ways: classes of a task.
        samples: items of each class.
        meaning: the same in words.
        lower: what to lower if there are too few classes, and if too few items.
    """
    place = getattr(dataset, "name", "the data set")
    counts = Counter(dataset.labels)
    if len(counts) < ways:
        raise ValueError(
            f"{place} has {len(counts)} classes, too few for {ways} ways: lower "
            f"{lower[0]} to {len(counts)} or add classes"
        )
    label, least = min(counts.items(), key=lambda item: item[1])
    if least < samples:
        names = getattr(dataset, "label_names", None)
        raise ValueError(
            f"class {names[label] if names else label!r} of {place} has {least} "
            f"images, too few for {meaning}: lower {lower[1]} to {least} or add images"
        )
