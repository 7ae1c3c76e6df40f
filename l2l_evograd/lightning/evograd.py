"""``LightningEvoGrad``: learn2learn's ``LightningMAML`` with EvoGrad inside."""

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from l2l_evograd.algorithms.evograd import EvoGradMetaOptimizer
from l2l_evograd.algorithms.meta_batch import adapt_tasks
from l2l_evograd.estimators import Estimator
from l2l_evograd.hyperparameters import Hyperparameters, listed
from l2l_evograd.lightning.episodic import EpisodicLearner, Pair, accuracy


class LightningEvoGrad(EpisodicLearner):
    """Meta-learn a model on few-shot tasks under a ``pytorch_lightning.Trainer``.

    It replaces learn2learn's ``LightningMAML``, and gives the same results as long as
    no hyperparameters are named. A batch is one task, as ``EpisodicBatcher`` yields it:
    images and labels, with the images of each class side by side. The learner adapts to
    the first ``shots`` images of each class and is evaluated on the others. A batch may
    also be several tasks of this form, stacked along a leading axis: all of them are
    then computed at once, and the loss is their mean, see
    :meth:`~l2l_evograd.EvoGradMetaOptimizer.task_losses`.

    Args:
        model: the network; it has as many outputs as there are ways.
        loss: function of outputs and labels, used for the inner and the outer loss.
            None: cross entropy. If it is a module, its parameters are meta-learned too.
        first_order: as for :class:`~l2l_evograd.EvoGradMetaOptimizer`.
        hyperparameters: likewise. Modules and parameters that lie outside the model
            become part of this module, so that the meta-optimizer, checkpoints,
            devices and DDP include them. :meth:`inner_loss` decides how they act.
        update: as for :class:`~l2l_evograd.EvoGradMetaOptimizer`.
        estimator: likewise.
        **others: the keyword arguments below. What is none of them is ignored, so that
            ``**vars(args)`` of a whole command line can be passed, as to
            ``LightningMAML``.

    Keyword Args:
        train_ways, train_shots, train_queries: classes of a training task, and images
            of each class for adaptation and for evaluation (5, 1, 1).
        test_ways, test_shots, test_queries: the same for a validation or test task
            (5, 1, 1).
        lr: meta learning rate of Adam (0.001).
        scheduler_step, scheduler_decay: ``lr`` is multiplied by ``scheduler_decay``
            every ``scheduler_step`` epochs (20, 1.0).
        adaptation_steps: inner steps for each task.
        adaptation_lr: inner learning rate η.
        nan_policy: what happens if a loss or a gradient of a training batch is NaN or
            infinite. ``"raise"``: NotFiniteError before anything has moved. ``"skip"``:
            the batch is left out, :attr:`skipped` counts it, is logged as
            ``train_skipped`` and stored in checkpoints. With several processes the
            batch of one adds nothing to their mean.

    Attributes:
        model: the :class:`~l2l_evograd.EvoGradMetaOptimizer`. Keys of the state dict
            are ``model.module.*``, as those of ``LightningMAML``.
        skipped: the number of training batches that were left out.

    Validation and testing adapt too, so they need gradients although the trainer
    switches them off. Each task therefore leaves ``torch.inference_mode`` while it
    runs, and ``Trainer(inference_mode=False)`` is not needed.

    A checkpoint also holds the random state of Python and torch of each process, and
    the seed of the perturbations. A run that is resumed with ``ckpt_path`` therefore
    continues bit for bit, including the tasks that are drawn during training.

    With DDP, each process contributes one task to each step, and gradients are
    averaged. If all processes have the same seed, as after ``seed_everything``, they
    all draw the same tasks. To avoid this, seed Python's ``random`` by rank. If a
    network leaves parameters unused, use
    ``strategy="ddp_find_unused_parameters_true"``.

    Raises:
        TypeError, ValueError: as :class:`~l2l_evograd.EvoGradMetaOptimizer`; for
            numbers below 1; for ``train_ways`` other than ``test_ways``; for
            hyperparameters outside the model that are not ``nn.Parameter``.

    Source: learn2learn's ``LightningMAML``.
    """

    least_steps: ClassVar[int] = 0

    model: EvoGradMetaOptimizer

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        *,
        first_order: bool | None = None,
        hyperparameters: Hyperparameters | None = None,
        update: str = "gradient",
        estimator: Estimator | str | None = None,
        **others: Any,
    ) -> None:
        own = {"first_order": first_order, "update": update}
        if estimator is None or isinstance(estimator, str):
            own["estimator"] = estimator
        super().__init__(loss, own, **others)
        # A list, because an iterator could not be read twice.
        chosen = None if hyperparameters is None else listed(hyperparameters)
        # Set before the model, so that a deep copy of this module copies these
        # parameters before the model's references to them.
        self.outside = _outside(chosen, [model, self])
        self._take(
            EvoGradMetaOptimizer(
                model,
                lr=self.adaptation_lr,
                first_order=first_order,
                hyperparameters=chosen,
                update=update,
                estimator=estimator,
                nan_policy=self.nan_policy,
            )
        )

    @staticmethod
    def add_model_specific_args(parent_parser: ArgumentParser) -> ArgumentParser:
        """Return a parser with the options of this module added to the parent's."""
        parser = EpisodicLearner.add_model_specific_args(parent_parser)
        parser.add_argument("--first_order", action="store_true", default=None)
        parser.add_argument(
            "--update", choices=("gradient", "evolution"), default="gradient"
        )
        parser.add_argument("--estimator", choices=("guided", "evograd", "exact"))
        return parser

    def _episode(
        self, support: Pair, query: Pair, training: bool
    ) -> tuple[Tensor, Tensor]:
        several = query[1].dim() == 2
        return (self._several if several else self._task)(support, query, training)

    def _task(
        self, support: Pair, query: Pair, training: bool
    ) -> tuple[Tensor, Tensor]:
        learner = self.model.clone(first_order=None if training else True)
        learner.train()
        for _ in range(self.adaptation_steps):
            self._adapt(learner, support, training)
        return self._evaluated(learner, query, training)

    def _several(
        self, support: Pair, query: Pair, training: bool
    ) -> tuple[Tensor, Tensor]:
        """Do the same for several tasks at once."""

        def inner(model: Any, data: Tensor, labels: Tensor) -> Any:
            return self.inner_loss(model, data, labels), ()

        def outer(model: nn.Module, data: Tensor, labels: Tensor) -> Any:
            outputs = model(data)
            return self.loss(outputs, labels), outputs

        meta = self.model.clone(first_order=None if training else True)
        meta.train()
        losses, outputs = adapt_tasks(
            meta, inner, outer, support, query, self.adaptation_steps
        )
        error = losses.mean() if training else losses.mean().detach()
        return error, accuracy(outputs.detach().flatten(0, 1), query[1].flatten())


def _outside(chosen: list[Any] | None, holders: list[nn.Module]) -> nn.ModuleList:
    """Return, as modules, the chosen items that no holder contains yet."""
    outside = nn.ModuleList()
    held = {id(p) for holder in holders for p in holder.parameters()}
    for item in chosen or []:
        if isinstance(item, nn.Module):
            if any(id(p) not in held for p in item.parameters()):
                outside.append(item)
        elif isinstance(item, nn.Parameter):
            if id(item) not in held:
                outside.append(nn.ParameterList([item]))
        elif isinstance(item, Tensor):
            raise TypeError(
                f"expected hyperparameters outside the model to be nn.Parameter, so "
                f"that checkpoints and the meta-optimizer include them, got a tensor "
                f"of shape {tuple(item.shape)}; wrap it in nn.Parameter"
            )
    return outside
