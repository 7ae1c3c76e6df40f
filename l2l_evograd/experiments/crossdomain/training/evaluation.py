"""Few-shot accuracy on a domain, from features that are computed once.

In evaluation mode, the encoders embed each image independently, so an image has the
same features in every episode. Hundreds of episodes therefore cost one pass over the
split, and one call of the head for each episode.
"""

import contextlib
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from l2l_evograd.experiments.crossdomain.data.domains import Dataset
from l2l_evograd.experiments.crossdomain.data.episodes import EpisodeSampler
from l2l_evograd.experiments.crossdomain.data.loading import Ahead
from l2l_evograd.experiments.crossdomain.networks.backbones import in_evaluation_mode
from l2l_evograd.experiments.crossdomain.networks.heads import (
    FewShotModel,
    few_shot_accuracy,
)
from l2l_evograd.experiments.results import half_interval


class Accuracy(NamedTuple):
    """A mean over episodes.

    Attributes:
        mean: fraction of queries that are classified correctly, 0 to 1.
        interval: half the width of the 95 % interval, 1.96 sd/√n.
        episodes: n.
    """

    mean: float
    interval: float
    episodes: int


class FeatureDataset(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """A data set of features in place of images, with the same labels.

    Args:
        features: one row for each image.
        dataset: data set with the labels.
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
        """Return the features of an image and its label."""
        return self.features[index], self.labels[index]


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` into evaluation mode, without gradients, for the body."""
    with in_evaluation_mode(model), torch.no_grad():
        yield


class ImageBatches:
    """The images of a data set in their order, in numbered batches.

    Args:
        dataset: data set of one split.
        size: number of images of a batch; the last batch may have fewer.
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
    """Return the features of every image in evaluation mode, on the CPU.

    Args:
        model: model whose encoder is used.
        dataset: the images.
        device: device of the model.
        batch_size: number of images in a forward pass.
        workers: number of processes that read images in advance; it does not change
            the features.

    Cost: one forward pass for each image; the features stay in memory.
    """
    make = ImageBatches(dataset, batch_size)
    rows = []
    with evaluating(model), contextlib.closing(Ahead(make, len(make), workers)) as read:
        for number in range(len(make)):
            rows.append(model.embed(read.take(number).to(device)).cpu())
    return FeatureDataset(torch.cat(rows), dataset)


def episode_accuracies(
    model: FewShotModel,
    sampler: EpisodeSampler,
    seeds: Iterable[int],
    device: torch.device,
) -> list[float]:
    """Return the accuracy on one episode of features for each seed.

    It is equal to the accuracy of ``model`` on the images of the episode in evaluation
    mode.

    Args:
        model: model whose head scores the episodes.
        sampler: draws episodes of the features that :func:`embed` returned.
        seeds: seeds of the episodes.
        device: device of the model.
    """
    accuracies = []
    with evaluating(model):
        for seed in seeds:
            episode = sampler.sample(seed).to(device)
            scores = model.head(
                episode.support_x, episode.support_y, episode.query_x, sampler.ways
            )
            accuracies.append(float(few_shot_accuracy(scores, episode.query_y)))
    return accuracies


def summarise(accuracies: Sequence[float]) -> Accuracy:
    """Return the mean and 95 % interval, 1.96 sd/√n, of at least two accuracies."""
    mean, count = statistics.fmean(accuracies), len(accuracies)
    return Accuracy(mean, half_interval(accuracies), count)
