"""The training run whose schedule is searched, and its losses.

The inner loss of a step is the cross-entropy of one batch of training images. The outer
loss is the cross-entropy of the validation images after the run. A seed determines the
initial weights and the batches of a run.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from l2l_evograd.bilevel.problem import Loss
from l2l_evograd.experiments.schedules.networks import initial_weights, scores
from l2l_evograd.experiments.schedules.settings import SchedulesSettings
from l2l_evograd.experiments.schedules.sources import Images, Splits
from l2l_evograd.seeds import generator_for

Params = Mapping[str, Tensor]


class Figures(NamedTuple):
    """Mean loss and accuracy on some images."""

    loss: float
    accuracy: float


class Problem:
    """A network and images, from which training runs are made.

    Args:
        splits: images for training, validation and test.
        settings: settings of the experiment.

    Attributes:
        splits, settings: as given.
    """

    def __init__(self, splits: Splits, settings: SchedulesSettings) -> None:
        self.splits = splits
        self.settings = settings

    def run(self, seed: int, steps: int | None = None) -> dict[str, Any]:
        """Return the arguments of a run but the schedule, for ``l2l_evograd.unroll``.

        Args:
            seed: seed of the initial weights and the batches.
            steps: number of steps; None: that of the settings. The batches of a short
                run are the first ones of a long run.
        """
        settings, splits = self.settings, self.splits
        steps = settings.steps if steps is None else steps
        start = initial_weights(
            settings.network,
            splits.shape,
            splits.classes,
            generator_for(seed, "weights"),
        )
        return {
            "inner_loss": self.batches(splits.train, seed, steps),
            "outer_loss": self.outer_loss,
            "params": start,
            "momentum": settings.rounded_momentum,
            "steps": steps,
        }

    def batches(self, images: Images, seed: int, count: int) -> list[Loss]:
        """Return the losses of batches, which are drawn with replacement."""
        generator = generator_for(seed, "batches")
        size = (count, self.settings.batch_size)
        chosen = torch.randint(len(images), size, generator=generator)
        return [partial(self._loss, images, indices) for indices in chosen]

    def outer_loss(self, params: Params, _: None) -> Tensor:
        """Return the loss of all validation images."""
        return self._loss(self.splits.validation, None, params, _)

    def figures(self, params: Params, images: Images) -> Figures:
        """Return mean loss and accuracy; NaN or infinite after a run that diverged."""
        loss, right = 0.0, 0
        with torch.no_grad():
            for part in torch.arange(len(images)).split(2000):
                found = self._scores(params, images.pixels[part])
                labels = images.labels[part]
                loss += float(cross_entropy(found, labels, reduction="sum"))
                right += int((found.argmax(dim=1) == labels).sum())
        return Figures(loss / len(images), right / len(images))

    def _scores(self, params: Params, pixels: Tensor) -> Tensor:
        return scores(self.settings.network, params, pixels.float() / 255)

    def _loss(
        self, images: Images, indices: Tensor | None, params: Params, _: None
    ) -> Tensor:
        pixels, labels = images if indices is None else images.of(indices)
        return cross_entropy(self._scores(params, pixels), labels)
