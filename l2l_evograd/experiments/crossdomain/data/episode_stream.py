"""The data of each meta-training iteration. They depend only on seed and iteration."""

import random
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from l2l_evograd.experiments.crossdomain.data.domains import Dataset
from l2l_evograd.experiments.crossdomain.data.episodes import Episode, EpisodeSampler
from l2l_evograd.seeds import derive_seed, seeded


class EpisodePair(NamedTuple):
    """The two episodes from which one hypergradient is computed.

    Attributes:
        seen: episode of the pseudo-seen domain, for the weights.
        unseen: episode of the pseudo-unseen domain, for the transformation.
    """

    seen: Episode
    unseen: Episode

    def to(self, device: torch.device) -> "EpisodePair":
        """Return the pair on ``device``."""
        return EpisodePair(*(episode.to(device) for episode in self))


class EpisodePairs:
    """Numbered pairs of episodes, the same for every method.

    Each pair comes from two different seen domains, a pseudo-seen and a pseudo-unseen
    domain.

    Args:
        samplers: maps the name of each seen domain to its sampler; at least two.
        seed: seed of all draws.
        block: number of consecutive pairs from the same two domains.
    """

    def __init__(
        self, samplers: Mapping[str, EpisodeSampler], seed: int, block: int = 1
    ) -> None:
        self._samplers = samplers
        self._seed = seed
        self._block = block

    def names(self, number: int) -> tuple[str, str]:
        """Return the pseudo-seen and the pseudo-unseen domain of a pair."""
        seed = derive_seed(self._seed, "domains", number // self._block)
        seen, unseen = random.Random(seed).sample(sorted(self._samplers), 2)
        return seen, unseen

    def pair(self, number: int) -> EpisodePair:
        """Return a pair, on the CPU. Random states do not change."""
        episodes = []
        for role, name in zip(("seen", "unseen"), self.names(number), strict=True):
            seed = derive_seed(self._seed, "episode", role, number)
            with seeded(seed):  # for augmentation
                episodes.append(self._samplers[name].sample(seed))
        return EpisodePair(*episodes)


class ClassBatches:
    """Numbered batches of images with labels from 0, for ordinary classification.

    Args:
        dataset: data set of one split.
        size: number of images in a batch.
        seed: seed of all draws.

    Attributes:
        classes: number of classes.
    """

    def __init__(self, dataset: Dataset, size: int, seed: int) -> None:
        self._dataset = dataset
        self._size = min(size, len(dataset))
        self._seed = seed
        labels = sorted(set(dataset.labels))
        self.classes = len(labels)
        self._number = {label: number for number, label in enumerate(labels)}

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Return images and labels, on the CPU."""
        seed = derive_seed(self._seed, "auxiliary", number)
        chosen = random.Random(seed).sample(range(len(self._dataset)), self._size)
        with seeded(seed):
            items = [self._dataset[index] for index in chosen]
        images = torch.stack([image for image, _ in items])
        return images, torch.tensor([self._number[label] for _, label in items])


class Drawn(NamedTuple):
    """The data of one process in one iteration.

    Attributes:
        numbers: numbers of the pairs.
        pairs: the pairs with these numbers.
        batch: images and labels of the auxiliary task; None without this task.
    """

    numbers: tuple[int, ...]
    pairs: tuple[EpisodePair, ...]
    batch: tuple[Tensor, Tensor] | None

    def to(self, device: torch.device) -> "Drawn":
        """Return the same data on ``device``."""
        batch = self.batch
        if batch is not None:
            batch = (batch[0].to(device), batch[1].to(device))
        return Drawn(self.numbers, tuple(p.to(device) for p in self.pairs), batch)


class Draws:
    """The data of a process in each iteration. No two iterations have the same pair.

    Args:
        pairs: pairs of all processes.
        each: number of pairs of one process in an iteration.
        rank: number of the process.
        count: number of processes.
        batches: batches of the auxiliary task; None: there is no such task.
    """

    def __init__(
        self,
        pairs: EpisodePairs,
        *,
        each: int = 1,
        rank: int = 0,
        count: int = 1,
        batches: ClassBatches | None = None,
    ) -> None:
        self._pairs = pairs
        self._each, self._rank, self._count = each, rank, count
        self._batches = batches

    def __call__(self, iteration: int) -> Drawn:
        """Return the data of an iteration, on the CPU."""
        first = iteration * self._each * self._count + self._rank
        numbers = tuple(first + self._count * turn for turn in range(self._each))
        batch = None
        if self._batches is not None:
            batch = self._batches.batch(iteration * self._count + self._rank)
        return Drawn(numbers, tuple(self._pairs.pair(n) for n in numbers), batch)
