"""MAML, ANIL and Meta-SGD, with learn2learn's classes."""

from typing import Any

import torch
from torch import Tensor, nn

from l2l_evograd.experiments.fewshot.algorithm import (
    Algorithm,
    Lesson,
    adapt,
    learn_from_query,
    loss_of,
    query_of,
)
from l2l_evograd.experiments.fewshot.network import FewShotNet
from l2l_evograd.experiments.from_learn2learn import l2l


class MAML(Algorithm):
    """learn2learn's MAML.

    Args:
        network: the network at its initial weights.
        lr: inner learning rate.
        meta_lr: learning rate of Adam.
        first_order: whether to drop the curvature of the inner steps.
    """

    def __init__(
        self, network: FewShotNet, lr: float, meta_lr: float, first_order: bool = False
    ) -> None:
        super().__init__()
        self.meta = l2l.algorithms.MAML(network, lr=lr, first_order=first_order)
        self._meta_lr = meta_lr

    def optimizer(self) -> torch.optim.Optimizer:
        """Return Adam for the initial weights."""
        return torch.optim.Adam(self.parameters(), lr=self._meta_lr)

    def learn(self, lesson: Lesson, share: float) -> Tensor:
        """Adapt, and differentiate the query loss."""
        return learn_from_query(self.meta.clone(), lesson, share)

    def learner(self) -> Any:
        """Return a clone whose steps keep no graph."""
        return self.meta.clone(first_order=True)


class MetaSGD(MAML):
    """learn2learn's Meta-SGD: MAML with a learned rate for every weight.

    Args:
        network: the network at its initial weights.
        lr: all rates at first.
        meta_lr: learning rate of Adam.
    """

    def __init__(self, network: FewShotNet, lr: float, meta_lr: float) -> None:
        super().__init__(network, lr, meta_lr)
        self.meta = l2l.algorithms.MetaSGD(network, lr=lr)

    def learner(self) -> Any:
        """Return a clone whose steps keep no graph."""
        learner = self.meta.clone()
        learner.first_order = True
        return learner


class ANIL(Algorithm):
    """Almost no inner loop: learn2learn's MAML around the last layer alone.

    Args:
        network: the network at its initial weights.
        lr: inner learning rate of the last layer.
        meta_lr: learning rate of Adam.

    Source: Raghu, Raghu, Bengio, Vinyals, "Rapid Learning or Feature Reuse?", ICLR
    2020.
    """

    def __init__(self, network: FewShotNet, lr: float, meta_lr: float) -> None:
        super().__init__()
        self.body = network.body
        self.meta = l2l.algorithms.MAML(network.head, lr=lr)
        self._meta_lr = meta_lr

    def optimizer(self) -> torch.optim.Optimizer:
        """Return Adam for the initial weights."""
        return torch.optim.Adam(self.parameters(), lr=self._meta_lr)

    def learn(self, lesson: Lesson, share: float) -> Tensor:
        """Adapt the last layer, and differentiate the query loss."""
        learner = self.meta.clone()
        # Every inner step has the same images. Their features do not change.
        images, labels = lesson.inner[0]
        features = self.body(images)
        adapt(learner, Lesson([(features, labels)] * len(lesson.inner)))
        images, labels = query_of(lesson)
        loss = loss_of(learner, (self.body(images), labels))
        (share * loss).backward()
        return loss.detach()

    def learner(self) -> Any:
        """Return a learner whose last layer adapts."""
        return _OnFeatures(self.body, self.meta.clone(first_order=True))


class _OnFeatures:
    """A learner of features, as one of images."""

    def __init__(self, body: nn.Module, head: Any) -> None:
        self._body, self._head = body, head

    def __call__(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            features = self._body(images)
        scores: Tensor = self._head(features)
        return scores

    def adapt(self, loss: Tensor) -> None:
        self._head.adapt(loss)
