"""Pre-training of the encoder by ordinary classification of the base domain."""

import functools
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2l_evograd.checks import InputError, check_choice
from l2l_evograd.experiments.crossdomain.data.domains import Dataset
from l2l_evograd.experiments.crossdomain.networks.backbones import in_evaluation_mode
from l2l_evograd.experiments.crossdomain.networks.features import embedded
from l2l_evograd.experiments.crossdomain.settings import CLASSIFIERS
from l2l_evograd.experiments.crossdomain.training.reading_module import ReadingModule
from l2l_evograd.experiments.training_module import parameters_of
from l2l_evograd.seeds import derive_seed, seeded

# Scale of cosines before the soft-max. More classes need a larger scale, so that one
# class can get most of the probability.
_SCALE = 2.0
_SCALE_OF_MANY = 10.0
_MANY = 200


class CosineClassifier(nn.Module):
    """Scores an image by the angle between its features and the weights of each class.

    s_c = scale · cos(f(x), w_c). The scale is 2 for up to 200 classes and 10 for more.

    Args:
        features: width of f(x).
        classes: number of classes.

    Source: baseline++ of Chen et al., ICLR 2019, section 3.2. The scale is from their
    code, which also gives every class a learned factor. The code of Tseng et al., ICLR
    2020, uses 10 for 200 classes too.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        # Only the directions matter, so the initial weights of a linear layer suffice.
        self.weight = nn.Linear(features, classes, bias=False).weight
        self.scale = _SCALE if classes <= _MANY else _SCALE_OF_MANY

    def forward(self, features: Tensor) -> Tensor:
        """Return scores, shape (N, classes), for features of shape (N, features)."""
        directions = F.normalize(self.weight, dim=1)
        return self.scale * F.linear(F.normalize(features, dim=1), directions)


class Pretraining(ReadingModule):
    """Ordinary classification of the classes of a domain.

    The input of the classifier is the flattened feature maps, or their averages over
    the pixels if a map has more than 2,048 numbers; see
    :func:`~l2l_evograd.experiments.crossdomain.networks.features.embedded`.

    Args:
        backbone: maps images to feature maps; the encoder that later trainings use.
        dataset: images of the base classes.
        lr: learning rate of Adam.
        seed: seed of the order of the images.
        epochs: number of passes over the images.
        batch_size: number of images of an iteration; 16 in the cross-domain benchmark.
        classifier: ``"linear"`` (baseline) or ``"cosine"`` (baseline++).
        classes: number of outputs of the classifier; None: the number of classes. The
            cross-domain benchmark has 200 outputs for the 64 classes of miniImagenet.
        precision: one of :data:`~l2l_evograd.experiments.precision.PRECISIONS`.
        workers: number of processes that read images in advance; 0: none.

    With several processes, each takes its share of every batch. The gradient is that of
    the mean over the whole batch, but batch statistics are those of the share. If a
    batch has less than two images per process, every process takes the whole batch.

    Raises:
        InputError: for an unknown classifier, or a classifier with too few classes.

    Source: Chen et al., ICLR 2019; settings as in Tseng et al., ICLR 2020.
    """

    recorded = (*ReadingModule.recorded, "correct")

    def __init__(
        self,
        backbone: nn.Module,
        dataset: Dataset,
        lr: float,
        seed: int,
        epochs: int = 1,
        batch_size: int = 64,
        classifier: str = "linear",
        classes: int | None = None,
        precision: str = "32",
        workers: int = 0,
    ) -> None:
        super().__init__(backbone, precision, workers)
        self.backbone = backbone
        self._dataset = dataset
        self._lr = lr
        self._seed = seed
        self._batch_size = batch_size
        present = sorted(set(dataset.labels))
        self._number = {label: number for number, label in enumerate(present)}
        if classes is None:
            classes = len(present)
        if classes < len(present):
            raise InputError(
                f"{dataset.name} has {len(present)} classes: expected a classifier "
                f"with at least as many, got {classes}; raise this number or leave it "
                f"out"
            )
        with torch.no_grad(), seeded(derive_seed(seed, "linear")):
            features = _features_of(backbone, dataset[0][0].unsqueeze(0))
            self.classifier = _make_classifier(classifier, features, classes)
        self.correct: list[float] = []
        self.block = -(-len(dataset) // batch_size)  # a pass over the images
        self.total = epochs * self.block

    @property
    def figures(self) -> dict[str, float]:
        """Values of the last iteration that are shown and logged besides its loss."""
        return {"accuracy": self.correct[-1]}

    def scores(self, images: Tensor) -> Tensor:
        """Return scores, shape (N, classes), for images."""
        return cast(Tensor, self.classifier(embedded(self.backbone(images))))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam for all parameters."""
        return torch.optim.Adam(self.parameters(), lr=self._lr)

    def draws(self) -> Callable[[int], "ShareOfBatch"]:
        """Return a function that maps an iteration to the share of this process."""
        return self._batch

    def iterate(self, iteration: int) -> float:
        """Run one iteration on one batch and return its mean loss."""
        images, labels, share = self.drawn
        (optimizer,) = self.plain_optimizers()
        with seeded(derive_seed(self._seed, "pretrain", iteration), self.device):
            scores = self.outputs(self.scores, images)
            # The mean of this over the processes is the mean over the whole batch.
            loss = self.scaled(share * F.cross_entropy(scores, labels))
            gradients = torch.autograd.grad(loss, parameters_of(optimizer))
        self.step(optimizer, gradients)
        right = share * (scores.argmax(1) == labels).float().mean()
        mean, accuracy = self.common(self.unscaled(loss), right)
        self.correct.append(accuracy)
        return mean

    def _batch(self, iteration: int) -> "ShareOfBatch":
        epoch, position = divmod(iteration, self.block)
        order = _order(len(self._dataset), derive_seed(self._seed, "order", epoch))
        start = position * self._batch_size
        chosen = order[start : start + self._batch_size]
        whole, count = len(chosen), self.processes.count
        if whole >= 2 * count:
            chosen = chosen[self.processes.rank :: count]
            share = len(chosen) * count / whole
        else:
            share = 1.0
        rank = [self.processes.rank] if self.processes.rank else []
        seed = derive_seed(self._seed, "augmentation", iteration, *rank)
        with seeded(seed):
            items = [self._dataset[index] for index in chosen]
        images = torch.stack([image for image, _ in items])
        labels = torch.tensor([self._number[label] for _, label in items])
        return ShareOfBatch(images, labels, share)


class ShareOfBatch(NamedTuple):
    """The share of one process in a batch.

    Attributes:
        images: shape (n, 3, S, S).
        labels: classes of the images.
        share: n times the number of processes, divided by the size of the whole batch.
            With this factor, the mean over the processes is the mean over the batch.
    """

    images: Tensor
    labels: Tensor
    share: float

    def to(self, device: torch.device) -> "ShareOfBatch":
        """Return the same share on ``device``."""
        return ShareOfBatch(self.images.to(device), self.labels.to(device), self.share)


@functools.lru_cache(maxsize=2)  # all batches of an epoch use the same order
def _order(count: int, seed: int) -> Sequence[int]:
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order


def _make_classifier(name: str, features: int, classes: int) -> nn.Module:
    check_choice(name, CLASSIFIERS, "classifier")
    if name == "linear":
        return nn.Linear(features, classes)
    return CosineClassifier(features, classes)


def _features_of(backbone: nn.Module, image: Tensor) -> int:
    """Return the number of features of one image. The backbone does not change."""
    with in_evaluation_mode(backbone):
        return int(embedded(backbone(image)).shape[1])
