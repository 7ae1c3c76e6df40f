"""Pre-training of the encoder: ordinary classification of the base domain."""

import random

import torch
from torch import Tensor, nn

from l2l_evograd.fewshot.domains import Dataset
from l2l_evograd.runs.module import Numbered, RecordingModule
from l2l_evograd.runs.randomness import derive_seed, seeded


class Pretraining(RecordingModule):
    """Ordinary classification of a domain's classes with a linear head.

    Args:
        backbone: images -> feature maps; what is trained for later.
        dataset: the base classes.
        lr: of Adam.
        seed: of the order of the images.
        batch_size: images of an iteration.
    """

    def __init__(
        self,
        backbone: nn.Module,
        dataset: Dataset,
        lr: float,
        seed: int,
        batch_size: int = 64,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self._dataset = dataset
        self._lr = lr
        self._seed = seed
        self._batch_size = batch_size
        classes = sorted(set(dataset.labels))
        self._number = {label: number for number, label in enumerate(classes)}
        with torch.no_grad(), seeded(derive_seed(seed, "linear"), torch.device("cpu")):
            features = _features_of(backbone, dataset[0][0].unsqueeze(0))
            self.classifier = nn.Linear(features, len(classes))
        self.correct: list[float] = []

    @property
    def batches(self) -> int:
        """Iterations of an epoch."""
        return -(-len(self._dataset) // self._batch_size)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam over everything."""
        return torch.optim.Adam(self.parameters(), lr=self._lr)

    def train_dataloader(self) -> Numbered:
        """Return the numbers of the iterations of the coming epoch."""
        return Numbered(self.done, self.done + self.batches)

    def iterate(self, iteration: int) -> float:
        """Make one step on one batch."""
        images, labels = self._batch(iteration)
        (optimizer,) = self.plain_optimizers()
        with seeded(derive_seed(self._seed, "pretrain", iteration), self.device):
            scores = self.classifier(self.backbone(images).flatten(1))
            loss = nn.functional.cross_entropy(scores, labels)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        self.correct.append(float((scores.argmax(1) == labels).float().mean()))
        return float(loss.detach())

    def _batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        epoch, position = divmod(iteration, self.batches)
        order = list(range(len(self._dataset)))
        random.Random(derive_seed(self._seed, "order", epoch)).shuffle(order)
        start = position * self._batch_size
        items = [self._dataset[i] for i in order[start : start + self._batch_size]]
        images = torch.stack([image for image, _ in items])
        labels = torch.tensor([self._number[label] for _, label in items])
        return images.to(self.device), labels.to(self.device)


def _features_of(backbone: nn.Module, image: Tensor) -> int:
    """Return how many numbers describe one image, leaving the backbone as it was."""
    was_training = backbone.training
    backbone.eval()
    try:
        return int(backbone(image).flatten(1).shape[1])
    finally:
        backbone.train(was_training)
