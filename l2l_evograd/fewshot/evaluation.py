"""Few-shot accuracy on a domain, from features that are computed once.

The networks here embed each image on its own in evaluation mode, so an image has the
same features in every episode. Hundreds of episodes then cost one pass over the split
and one call of the head for each.
"""

import contextlib
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from l2l_evograd.fewshot.backbones import in_evaluation_mode
from l2l_evograd.fewshot.domains import Dataset
from l2l_evograd.fewshot.episodes import EpisodeSampler
from l2l_evograd.fewshot.heads import FewShotModel, few_shot_accuracy
from l2l_evograd.fewshot.loading import iteration_loader


class Accuracy(NamedTuple):
    """A mean over episodes.

    Attributes:
        mean: fraction of the queries that are right, 0 to 1.
        interval: half the width of the 95 % interval, 1.96 sd/√n.
        episodes: n.
    """

    mean: float
    interval: float
    episodes: int


class FeatureDataset(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Features in place of a data set's images, with the same labels.

    Args:
        features: one row for each image.
        dataset: where the labels come from.
    """

    def __init__(self, features: Tensor, dataset: Dataset) -> None:
        self.features = features
        self.name = dataset.name
        self.labels = list(dataset.labels)
        self.label_names = list(dataset.label_names)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.features)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image's features and its label."""
        return self.features[index], self.labels[index]


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` into evaluation mode, without gradients, for the body."""
    with in_evaluation_mode(model), torch.no_grad():
        yield


class ImageBatches:
    """A data set's images in their order, in numbered batches.

    Args:
        dataset: of a split.
        size: images of a batch; the last one may have fewer.
    """

    def __init__(self, dataset: Dataset, size: int) -> None:
        self._dataset = dataset
        self._size = size

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self._dataset) // self._size)

    def __call__(self, number: int) -> Tensor:
        """Return a batch, shape (n, 3, H, W)."""
        start = number * self._size
        stop = min(start + self._size, len(self._dataset))
        return torch.stack([self._dataset[i][0] for i in range(start, stop)])


def embed(
    model: FewShotModel,
    dataset: Dataset,
    device: torch.device,
    batch_size: int = 128,
    workers: int = 0,
) -> FeatureDataset:
    """Return every image's features, on the CPU, in evaluation mode.

    Args:
        model: whose features they are.
        dataset: the images.
        device: where the model is.
        batch_size: images of a forward pass.
        workers: processes that read images ahead, see
            :func:`~l2l_evograd.fewshot.loading.iteration_loader`; the features are the
            same with any number.

    Cost: one forward pass for each image; the features stay in memory.
    """
    make = ImageBatches(dataset, batch_size)
    loader = iteration_loader(
        make, 0, len(make), workers, pin_memory=device.type == "cuda"
    )
    rows = []
    with evaluating(model), contextlib.closing(iter(loader)) as batches:
        for _, images in batches:
            rows.append(model.embed(images.to(device)).cpu())
    return FeatureDataset(torch.cat(rows), dataset)


def episode_accuracies(
    model: FewShotModel,
    features: FeatureDataset,
    shape: tuple[int, int, int],
    seeds: Iterable[int],
    device: torch.device,
) -> list[float]:
    """Return the accuracy on one episode of ``features`` for each seed.

    The same as calling ``model`` on the episode's images in evaluation mode.

    Args:
        model: whose head scores the episodes.
        features: from :func:`embed` with the same model.
        shape: ways, shots, queries.
        seeds: of the episodes.
        device: where the model is.
    """
    ways, shots, queries = shape
    sampler = EpisodeSampler(features, ways, shots, queries)
    accuracies = []
    with evaluating(model):
        for seed in seeds:
            episode = sampler.sample(seed)
            scores = model.head(
                episode.support_x.to(device),
                episode.support_y.to(device),
                episode.query_x.to(device),
                ways,
            )
            accuracies.append(
                float(few_shot_accuracy(scores, episode.query_y.to(device)))
            )
    return accuracies


def summarise(accuracies: Sequence[float]) -> Accuracy:
    """Return mean and 95 % interval, 1.96 sd/√n, of at least two accuracies."""
    count = len(accuracies)
    interval = 1.96 * statistics.stdev(accuracies) / math.sqrt(count)
    return Accuracy(statistics.fmean(accuracies), interval, count)
