"""WarpGrad and its control, and warp layers learned by EvoGrad."""

from typing import Any

import torch
from torch import Tensor

from l2l_evograd import EvoGradMetaOptimizer
from l2l_evograd.algorithms.warpgrad import WarpGrad
from l2l_evograd.estimators import EvoGrad
from l2l_evograd.experiments.fewshot.algorithm import (
    Algorithm,
    Lesson,
    learn_from_query,
    loss_of,
    query_of,
)
from l2l_evograd.experiments.fewshot.methods import CANDIDATES
from l2l_evograd.experiments.fewshot.network import FewShotNet
from l2l_evograd.warp_layers import add_warp_layers, warp_layers


class Warped(Algorithm):
    """WarpGrad online, with the initial weights learned beside the warp layers.

    Args:
        network: the network at its initial weights; warp layers are put into it.
        lr: inner learning rate.
        meta_lr: learning rate of Adam, for warp layers and initial weights.
        kind: kind of the warp layers.
        init: how the initial weights are learned.
        first_order: whether to drop the derivative through the inner steps.
        frozen: whether the warp layers stay the identity that they are at first.
    """

    def __init__(
        self,
        network: FewShotNet,
        lr: float,
        meta_lr: float,
        kind: str,
        init: str,
        first_order: bool = False,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.meta = WarpGrad(
            add_warp_layers(network, kind),
            lr,
            init=init,
            first_order=first_order,
            check="never",  # a repeated inner loss would not be in the budget
        )
        self._meta_lr = meta_lr
        self._frozen = frozen

    def optimizer(self) -> torch.optim.Optimizer:
        """Return Adam for what is learned."""
        learned = self.meta.init_parameters()
        if not self._frozen:
            learned += self.meta.warp_parameters()
        return torch.optim.Adam(learned, lr=self._meta_lr)

    def learn(self, lesson: Lesson, share: float) -> Tensor:
        """Adapt, and differentiate the query loss after every step."""
        learner, query = self.meta.clone(), query_of(lesson)
        steps = len(lesson.inner)
        for number, batch in enumerate(lesson.inner, 1):
            learner.adapt(loss_of(learner, batch))
            if number < steps and not self._frozen:
                (share / steps * loss_of(learner, query)).backward()
        if not self._frozen:
            return self._end(learner, lesson, query, share)
        loss = self._initial(learner, lesson, query)
        (share * loss).backward()
        return loss.detach()

    def _end(self, learner: WarpGrad, lesson: Lesson, query: Any, share: float) -> Any:
        """Differentiate with respect to both, from one query loss if possible."""
        loss = loss_of(learner, query)
        if self.meta.init in ("maml", "fomaml"):
            initial = learner.init_loss(loss)
        else:
            initial = self._initial(learner, lesson, query)
        (share * (loss / len(lesson.inner) + initial)).backward()
        return loss.detach()

    def _initial(self, learner: WarpGrad, lesson: Lesson, query: Any) -> Tensor:
        """Return the loss whose gradient is that of the initial weights."""
        if self.meta.init == "reptile":
            return learner.init_loss()
        batch = lesson.inner[-1] if self.meta.init == "leap" else query
        return learner.init_loss(loss_of(learner, batch))

    def learner(self) -> Any:
        """Return a clone whose steps keep no graph."""
        return self.meta.clone(first_order=True)


class EvoGradWarped(Algorithm):
    """Warp layers λ, learned through all inner steps by EvoGrad's perturbed models.

    The query loss after the last step gives their gradient, and that of the initial
    weights as in first-order MAML.

    Args:
        network: the network at its initial weights; warp layers are put into it.
        lr: inner learning rate.
        meta_lr: learning rate of Adam, for warp layers and initial weights.
        kind: kind of the warp layers.
    """

    def __init__(
        self, network: FewShotNet, lr: float, meta_lr: float, kind: str
    ) -> None:
        super().__init__()
        add_warp_layers(network, kind)
        self.meta = EvoGradMetaOptimizer(
            network,
            lr,
            hyperparameters=warp_layers(network),
            estimator=EvoGrad(CANDIDATES),
            generator=torch.Generator(),
            check="never",  # a repeated inner loss would not be in the budget
        )
        self._lr, self._meta_lr = lr, meta_lr

    def begin(self, seed: int) -> None:
        """Seed the perturbations."""
        self.meta.generator.manual_seed(seed)

    def optimizer(self) -> torch.optim.Optimizer:
        """Return Adam for warp layers and initial weights."""
        return torch.optim.Adam(self.parameters(), lr=self._meta_lr)

    def learn(self, lesson: Lesson, share: float) -> Tensor:
        """Adapt, and differentiate the query loss."""
        return learn_from_query(self.meta.clone(), lesson, share)

    def learner(self) -> Any:
        """Return a learner that makes the same steps and records nothing."""
        return WarpGrad(self.meta.module, self._lr, first_order=True).clone()
