"""What each iteration of meta-training sees, drawn from its number alone."""

import random
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from l2l_evograd.fewshot.domains import Dataset
from l2l_evograd.fewshot.episodes import Episode, EpisodeSampler
from l2l_evograd.runs.randomness import derive_seed, seeded

CPU = torch.device("cpu")


class EpisodePair(NamedTuple):
    """What one hypergradient is made from.

    Attributes:
        seen: episode of the pseudo-seen domain, for the weights.
        unseen: episode of the pseudo-unseen domain, for the transformation.
    """

    seen: Episode
    unseen: Episode

    def to(self, device: torch.device) -> "EpisodePair":
        """Return the pair on ``device``."""
        return EpisodePair(
            *(Episode(*(tensor.to(device) for tensor in one)) for one in self)
        )


class EpisodePairs:
    """Numbered pairs of episodes, the same for every method.

    Each pair comes from a pseudo-seen and a different pseudo-unseen domain among the
    seen ones.

    Args:
        domains: name -> base classes of each seen domain, at least two.
        shape: ways, shots, queries.
        seed: what all draws follow from.
        block: consecutive pairs that the two domains stay for.
    """

    def __init__(
        self,
        domains: Mapping[str, Dataset],
        shape: tuple[int, int, int],
        seed: int,
        block: int = 1,
    ) -> None:
        self._samplers = {
            name: EpisodeSampler(dataset, *shape) for name, dataset in domains.items()
        }
        self._seed = seed
        self._block = block

    def names(self, number: int) -> tuple[str, str]:
        """Return the pseudo-seen and the pseudo-unseen domain of a pair."""
        seed = derive_seed(self._seed, "domains", number // self._block)
        seen, unseen = random.Random(seed).sample(sorted(self._samplers), 2)
        return seen, unseen

    def pair(self, number: int) -> EpisodePair:
        """Return a pair, on the CPU; the global random states stay as they are."""
        episodes = []
        for role, name in zip(("seen", "unseen"), self.names(number), strict=True):
            seed = derive_seed(self._seed, "episode", role, number)
            with seeded(seed, CPU):  # for augmentation, where there is one
                episodes.append(self._samplers[name].sample(seed))
        return EpisodePair(*episodes)


class ClassBatches:
    """Numbered batches of images with labels from 0, for ordinary classification.

    Args:
        dataset: of a split.
        size: images of a batch.
        seed: what all draws follow from.

    Attributes:
        classes: how many there are.
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
        with seeded(seed, CPU):
            items = [self._dataset[index] for index in chosen]
        images = torch.stack([image for image, _ in items])
        return images, torch.tensor([self._number[label] for _, label in items])


class Drawn(NamedTuple):
    """What one process sees in one iteration.

    Attributes:
        numbers: of its pairs.
        pairs: as many.
        batch: images and labels of the auxiliary task, where there is one.
    """

    numbers: tuple[int, ...]
    pairs: tuple[EpisodePair, ...]
    batch: tuple[Tensor, Tensor] | None

    def to(self, device: torch.device) -> "Drawn":
        """Return the same on ``device``."""
        batch = self.batch
        if batch is not None:
            batch = (batch[0].to(device), batch[1].to(device))
        return Drawn(self.numbers, tuple(p.to(device) for p in self.pairs), batch)


class Draws:
    """What a process sees in each iteration; iterations share no pair.

    Args:
        pairs: of all processes.
        each: pairs of an iteration that one process sees.
        rank: number of the process.
        count: how many processes there are.
        batches: of the auxiliary task; None: there is none.
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
        """Return an iteration's pairs, on the CPU."""
        first = iteration * self._each * self._count + self._rank
        numbers = tuple(first + self._count * turn for turn in range(self._each))
        batch = None
        if self._batches is not None:
            batch = self._batches.batch(iteration * self._count + self._rank)
        return Drawn(numbers, tuple(self._pairs.pair(n) for n in numbers), batch)
