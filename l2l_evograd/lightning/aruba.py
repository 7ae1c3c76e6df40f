"""``LightningARUBA``: ARUBA and Reptile under a ``pytorch_lightning.Trainer``."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from l2l_evograd.algorithms.aruba import ARUBA
from l2l_evograd.lightning.episodic import EpisodicLearner, Pair


class LightningARUBA(EpisodicLearner):
    """Meta-learn initial weights by Reptile, and inner learning rates by ARUBA.

    Tasks, checkpoints and evaluation are as in
    :class:`~l2l_evograd.lightning.LightningEvoGrad`; several tasks in one batch are
    computed one after another. Training adapts to the support images of a task. Its
    query images are only used for the loss and the accuracy that are logged.

    Args:
        model: the network.
        loss: as for :class:`~l2l_evograd.lightning.LightningEvoGrad`.
        zeta: as for :class:`~l2l_evograd.ARUBA`, and so is the following.
        rates: likewise.
        plus: c of ARUBA++ in validation and tests.
        lr: rate of Reptile's meta-step by plain SGD (1.0).
        **others: sizes, rates and further settings, as for
            :class:`~l2l_evograd.lightning.LightningEvoGrad`. ``adaptation_lr`` is the
            first inner rate.

    Attributes:
        model: the :class:`~l2l_evograd.ARUBA`, with its statistics as buffers.

    Raises:
        TypeError, ValueError: as :class:`~l2l_evograd.ARUBA` and
            :class:`~l2l_evograd.lightning.LightningEvoGrad`; without inner steps.
        RuntimeError: when training starts in several processes, whose statistics would
            differ.
    """

    model: ARUBA

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        *,
        zeta: float = 0.1,
        rates: str = "coordinate",
        plus: float = 0.0,
        lr: float = 1.0,
        **others: Any,
    ) -> None:
        own = {"zeta": zeta, "rates": rates, "plus": plus}
        super().__init__(loss, own, lr=lr, **others)
        self._take(
            ARUBA(
                model,
                self.adaptation_lr,
                zeta=zeta,
                rates=rates,
                nan_policy=self.nan_policy,
            )
        )
        self.model.clone(plus=plus)  # raises an error if plus is out of range

    def configure_optimizers(self) -> Any:
        """Return plain SGD and its schedule."""
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.StepLR(
            optimizer, step_size=self.scheduler_step, gamma=self.scheduler_decay
        )
        return [optimizer], [schedule]

    def on_fit_start(self) -> None:
        """Refuse several processes."""
        if self.trainer.world_size > 1:
            raise RuntimeError(
                f"expected one process, got {self.trainer.world_size}: each would "
                f"learn rates of its own; create the Trainer with devices=1"
            )

    def _task(
        self, support: Pair, query: Pair, training: bool
    ) -> tuple[Tensor, Tensor]:
        learner = self.model.clone(plus=0.0 if training else self.plus)
        learner.train()
        for _ in range(self.adaptation_steps):
            self._adapt(learner, support, training)
        error, share = self._evaluated(learner, query, training=False)
        if not training:
            return error, share
        self.model.collect(learner)
        initial = learner.init_loss()
        return error + (initial - initial.detach()), share
