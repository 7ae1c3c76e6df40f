"""``LightningWarpGrad``: WarpGrad under a ``pytorch_lightning.Trainer``."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from l2l_evograd.algorithms.initial_weights import loss_with_gradient
from l2l_evograd.algorithms.warpgrad import WarpGrad
from l2l_evograd.estimators import Estimator
from l2l_evograd.hyperparameters import Hyperparameters
from l2l_evograd.lightning.episodic import EpisodicLearner, Pair
from l2l_evograd.replay.inner_loss import or_zeros


class LightningWarpGrad(EpisodicLearner):
    """Meta-learn warp layers and initial weights on few-shot tasks.

    Tasks, checkpoints and evaluation are as in
    :class:`~l2l_evograd.lightning.LightningEvoGrad`; several tasks in one batch are
    computed one after another. The query loss after every inner step gives the gradient
    of the warp parameters, as their mean over the steps.

    Args:
        model: the network, with warp layers in it.
        loss: as for :class:`~l2l_evograd.lightning.LightningEvoGrad`.
        warp: as for :class:`~l2l_evograd.WarpGrad`, and so are the following.
        warp_first_order: likewise, its ``first_order``.
        init: likewise; ``"maml"`` is the default here.
        estimator: likewise.
        **others: sizes, rates and further settings, as for
            :class:`~l2l_evograd.lightning.LightningEvoGrad`.

    Attributes:
        model: the :class:`~l2l_evograd.WarpGrad`.

    With ``init=None`` and DDP, use ``strategy="ddp_find_unused_parameters_true"``,
    because the initial weights get no gradient.

    Raises:
        TypeError, ValueError: as :class:`~l2l_evograd.WarpGrad` and
            :class:`~l2l_evograd.lightning.LightningEvoGrad`; without inner steps.
    """

    model: WarpGrad

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        *,
        warp: Hyperparameters | None = None,
        warp_first_order: bool = False,
        init: str | None = "maml",
        estimator: Estimator | str | None = None,
        **others: Any,
    ) -> None:
        own = {"warp_first_order": warp_first_order, "init": init}
        super().__init__(loss, own, **others)
        self._take(
            WarpGrad(
                model,
                lr=self.adaptation_lr,
                warp=warp,
                first_order=warp_first_order,
                init=init,
                estimator=estimator,
                nan_policy=self.nan_policy,
            )
        )

    def _task(
        self, support: Pair, query: Pair, training: bool
    ) -> tuple[Tensor, Tensor]:
        learner = self.model.clone(first_order=None if training else True)
        learner.train()
        warp = self.model.warp_parameters()
        total = [torch.zeros_like(parameter) for parameter in warp]
        for _ in range(self.adaptation_steps):
            self._adapt(learner, support, training)
            if training:
                error, share = self._evaluated(learner, query, training=True)
                found = torch.autograd.grad(
                    error, warp, retain_graph=True, allow_unused=True
                )
                for part, new in zip(total, or_zeros(found, warp), strict=True):
                    part += new / self.adaptation_steps
        if not training:
            return self._evaluated(learner, query, training=False)
        carried = loss_with_gradient(error, warp, total)
        if self.init is None:
            return carried, share
        last = self.inner_loss(learner, *support) if self.init == "leap" else error
        initial = learner.init_loss(last)
        return carried + (initial - initial.detach()), share
