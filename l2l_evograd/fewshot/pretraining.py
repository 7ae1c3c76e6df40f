"""Pre-training of the encoder: ordinary classification of the base domain."""

import functools
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2l_evograd.fewshot.backbones import in_evaluation_mode
from l2l_evograd.fewshot.domains import Dataset
from l2l_evograd.fewshot.features import embedded
from l2l_evograd.fewshot.training_module import TrainingModule
from l2l_evograd.runs.randomness import derive_seed, seeded

CLASSIFIERS = ("linear", "cosine")

# Of cosines before soft-max: the more classes, the more it takes to single one out.
_SCALE = 2.0
_SCALE_OF_MANY = 10.0
_MANY = 200


class CosineClassifier(nn.Module):
    """Score an image by the angle between its features and each class's weights.

    s_c = scale · cos(f(x), w_c); scale is 2 for up to 200 classes and 10 for more.

    Args:
        features: width of f(x).
        classes: how many there are.

    Source: baseline++ of Chen et al., ICLR 2019, section 3.2; the scale from their
    code, which also gives every class a learned factor. That of Tseng et al., ICLR
    2020, takes 10 for 200 classes as well.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        # Only the directions count, so a linear layer's initial weights will do.
        self.weight = nn.Linear(features, classes, bias=False).weight
        self.scale = _SCALE if classes <= _MANY else _SCALE_OF_MANY

    def forward(self, features: Tensor) -> Tensor:
        """Return scores, shape (N, classes), of features of shape (N, features)."""
        directions = F.normalize(self.weight, dim=1)
        return self.scale * F.linear(F.normalize(features, dim=1), directions)


class Pretraining(TrainingModule):
    """Ordinary classification of a domain's classes.

    The classifier sees the flattened feature maps, or their averages over the pixels
    where a map holds more than 2,048 numbers; see
    :func:`~l2l_evograd.fewshot.features.embedded`.

    Args:
        backbone: images -> feature maps; what is trained for later.
        dataset: the base classes.
        lr: of Adam.
        seed: of the order of the images.
        batch_size: images of an iteration; 16 in the cross-domain benchmark.
        classifier: ``"linear"`` (baseline) or ``"cosine"`` (baseline++).
        classes: how many the classifier tells apart; None: those that there are. The
            cross-domain benchmark has 200 for the 64 of miniImagenet.
        precision: one of :data:`~l2l_evograd.runs.precision.PRECISIONS`.
        workers: processes that read images ahead; 0: none.

    In several processes each takes its share of every batch, and the gradient is that
    of the mean over the whole batch; batch statistics are of the share. A batch of less
    than two images for each process is taken whole by all of them.

    Raises:
        ValueError: for an unknown classifier, or one with too few classes.

    Source: Chen et al., ICLR 2019; settings as in Tseng et al., ICLR 2020.
    """

    recorded = (*TrainingModule.recorded, "correct")

    def __init__(
        self,
        backbone: nn.Module,
        dataset: Dataset,
        lr: float,
        seed: int,
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
            raise ValueError(
                f"{dataset.name} has {len(present)} classes: expected a classifier of "
                f"at least as many, got {classes}; raise its classes or leave them out"
            )
        with torch.no_grad(), seeded(derive_seed(seed, "linear"), torch.device("cpu")):
            features = _features_of(backbone, dataset[0][0].unsqueeze(0))
            self.classifier = _make_classifier(classifier, features, classes)
        self.correct: list[float] = []

    @property
    def figures(self) -> dict[str, float]:
        """What is shown and logged of the last iteration besides its loss."""
        return {"accuracy": self.correct[-1]}

    @property
    def batches(self) -> int:
        """Iterations of an epoch."""
        return -(-len(self._dataset) // self._batch_size)

    def scores(self, images: Tensor) -> Tensor:
        """Return scores, shape (N, classes), of images."""
        return cast(Tensor, self.classifier(embedded(self.backbone(images))))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam over everything."""
        return torch.optim.Adam(self.parameters(), lr=self._lr)

    @property
    def total(self) -> int:
        """How many iterations there are in all."""
        return self.batches * (self.trainer.max_epochs or 1)

    @property
    def block(self) -> int:
        """Iterations from one checkpoint to the next."""
        return self.batches

    def draws(self) -> Callable[[int], "ShareOfBatch"]:
        """Return the batches of this process."""
        return self._batch

    def iterate(self, iteration: int) -> float:
        """Make one step on one batch and return its mean loss."""
        images, labels, share = self.drawn
        (optimizer,) = self.plain_optimizers()
        weights = list(self.parameters())
        with seeded(derive_seed(self._seed, "pretrain", iteration), self.device):
            scores = self.scores_of(self.scores, images)
            # A mean over processes that is the mean over the whole batch.
            loss = self.scaled(share * F.cross_entropy(scores, labels))
            found = torch.autograd.grad(loss, weights)
        for weight, gradient in zip(weights, found, strict=True):
            weight.grad = gradient
        self.average(weights)
        optimizer.step()
        right = share * (scores.argmax(1) == labels).float().mean()
        mean, accuracy = self.common(self.unscaled(loss), right)
        self.correct.append(accuracy)
        return mean

    def _batch(self, iteration: int) -> "ShareOfBatch":
        epoch, position = divmod(iteration, self.batches)
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
        with seeded(seed, torch.device("cpu")):
            items = [self._dataset[index] for index in chosen]
        images = torch.stack([image for image, _ in items])
        labels = torch.tensor([self._number[label] for _, label in items])
        return ShareOfBatch(images, labels, share)


class ShareOfBatch(NamedTuple):
    """What one process sees of a batch.

    Attributes:
        images: shape (n, 3, S, S).
        labels: their classes.
        share: n times the number of processes by the size of the whole batch, which
            makes of a mean over the share a term of the mean over all processes.
    """

    images: Tensor
    labels: Tensor
    share: float

    def to(self, device: torch.device) -> "ShareOfBatch":
        """Return the same on ``device``."""
        return ShareOfBatch(self.images.to(device), self.labels.to(device), self.share)


@functools.lru_cache(maxsize=2)  # all batches of an epoch have the same one
def _order(count: int, seed: int) -> Sequence[int]:
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order


def _make_classifier(name: str, features: int, classes: int) -> nn.Module:
    if name == "linear":
        return nn.Linear(features, classes)
    if name == "cosine":
        return CosineClassifier(features, classes)
    raise ValueError(f"expected a classifier of {', '.join(CLASSIFIERS)}, got {name!r}")


def _features_of(backbone: nn.Module, image: Tensor) -> int:
    """Return how many numbers describe one image, leaving the backbone as it was."""
    with in_evaluation_mode(backbone):
        return int(embedded(backbone(image)).shape[1])
