"""Reptile, and Reptile with ARUBA's rates."""

from typing import Any

import torch
from torch import Tensor

from l2l_evograd.algorithms.aruba import ARUBA
from l2l_evograd.experiments.fewshot.algorithm import Algorithm, Lesson, adapt
from l2l_evograd.experiments.fewshot.network import FewShotNet
from l2l_evograd.experiments.from_learn2learn import l2l


class Reptile(Algorithm):
    """Reptile, with a clone of learn2learn's first-order MAML for the inner steps.

    The meta-gradient is φ − θ̂, from the initial weights φ and the weights θ̂ after
    adaptation. A step of SGD with rate s then is φ ← φ + s (θ̂ − φ).

    Args:
        network: the network at its initial weights.
        lr: inner learning rate.
        meta_lr: s at first.

    Source: Nichol, Achiam, Schulman, "On First-Order Meta-Learning Algorithms", 2018.
    """

    def __init__(self, network: FewShotNet, lr: float, meta_lr: float) -> None:
        super().__init__()
        self.meta = l2l.algorithms.MAML(network, lr=lr, first_order=True)
        self._meta_lr = meta_lr

    def optimizer(self) -> torch.optim.Optimizer:
        """Return SGD for the initial weights."""
        return torch.optim.SGD(self.meta.parameters(), lr=self._meta_lr)

    def learn(self, lesson: Lesson, share: float) -> Tensor:
        """Adapt, and point the gradient away from where the weights have come to."""
        learner = self.meta.clone()
        loss = adapt(learner, lesson)
        ends = [end.detach() for end in learner.parameters()]
        for start, end in zip(self.meta.parameters(), ends, strict=True):
            gradient = share * (start.detach() - end)
            start.grad = gradient if start.grad is None else start.grad + gradient
        return loss

    def learner(self) -> Any:
        """Return a clone."""
        return self.meta.clone()


class RatedReptile(Algorithm):
    """Reptile with ARUBA's rates.

    Args:
        network: the network at its initial weights.
        lr: all inner learning rates at first.
        meta_lr: rate of the meta-step at first.
        zeta: as for :class:`~l2l_evograd.algorithms.aruba.ARUBA`.

    Attributes:
        plus: c of ARUBA++, for learners of the test; 0: plain ARUBA.
    """

    def __init__(
        self, network: FewShotNet, lr: float, meta_lr: float, zeta: float
    ) -> None:
        super().__init__()
        self.meta = ARUBA(network, lr, zeta=zeta)
        self.plus = 0.0
        self._meta_lr = meta_lr

    def optimizer(self) -> torch.optim.Optimizer:
        """Return SGD for the initial weights."""
        return torch.optim.SGD(self.meta.parameters(), lr=self._meta_lr)

    def learn(self, lesson: Lesson, share: float) -> Tensor:
        """Adapt, collect the statistics, and differentiate Reptile's loss."""
        learner = self.meta.clone()
        loss = adapt(learner, lesson)
        self.meta.collect(learner)
        (share * learner.init_loss()).backward()
        return loss

    def learner(self) -> Any:
        """Return a clone with the learned rates, or with those of ARUBA++."""
        return self.meta.clone(plus=self.plus)
