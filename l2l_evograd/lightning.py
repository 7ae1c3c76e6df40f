"""``LightningEvoGrad``: learn2learn's ``LightningMAML`` with EvoGrad inside."""

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from l2l_evograd.algorithms.evograd import EvoGradMetaOptimizer
from l2l_evograd.algorithms.meta_batch import adapt_tasks
from l2l_evograd.estimators import Estimator
from l2l_evograd.hyperparameters import Hyperparameters, listed
from l2l_evograd.replay.tensor import plain
from l2l_evograd.seeds import (
    derive_seed,
    random_state,
    set_random_state,
)

try:
    import pytorch_lightning  # noqa: F401  # learn2learn's modules hide that it is missing
    from learn2learn.algorithms.lightning import LightningEpisodicModule
    from learn2learn.utils import accuracy
except ModuleNotFoundError as error:
    missing = str(error.name).partition(".")[0]
    raise ModuleNotFoundError(
        f"LightningEvoGrad needs {missing}, which is not installed: "
        f"pip install 'l2l-evograd[fewshot]'",
        name=error.name,
    ) from error

_CHECKPOINT_KEY = "evograd"

Pair = tuple[Tensor, Tensor]


class LightningEvoGrad(LightningEpisodicModule):
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
        train_ways, train_shots, train_queries: classes of a training task, and images
            of each class for adaptation and for evaluation (5, 1, 1).
        test_ways, test_shots, test_queries: the same for a validation or test task
            (5, 1, 1).
        lr: meta learning rate of Adam (0.001).
        scheduler_step, scheduler_decay: ``lr`` is multiplied by ``scheduler_decay``
            every ``scheduler_step`` epochs (20, 1.0).
        adaptation_steps: inner steps for each task.
        adaptation_lr: inner learning rate η.
        first_order: as for :class:`~l2l_evograd.EvoGradMetaOptimizer`.
        hyperparameters: likewise. Modules and parameters that lie outside the model
            become part of this module, so that the meta-optimizer, checkpoints,
            devices and DDP include them. :meth:`inner_loss` decides how they act.
        update: as for :class:`~l2l_evograd.EvoGradMetaOptimizer`.
        estimator: likewise.
        **others: ignored, so that ``**vars(args)`` of a whole command line can be
            passed, as to ``LightningMAML``.

    Attributes:
        model: the :class:`~l2l_evograd.EvoGradMetaOptimizer`. Keys of the state dict
            are ``model.module.*``, as those of ``LightningMAML``.

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

    adaptation_steps = 1
    adaptation_lr = 0.1

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        *,
        train_ways: int = LightningEpisodicModule.train_ways,
        train_shots: int = LightningEpisodicModule.train_shots,
        train_queries: int = LightningEpisodicModule.train_queries,
        test_ways: int = LightningEpisodicModule.test_ways,
        test_shots: int = LightningEpisodicModule.test_shots,
        test_queries: int = LightningEpisodicModule.test_queries,
        lr: float = LightningEpisodicModule.lr,
        scheduler_step: int = LightningEpisodicModule.scheduler_step,
        scheduler_decay: float = LightningEpisodicModule.scheduler_decay,
        adaptation_steps: int = adaptation_steps,
        adaptation_lr: float = adaptation_lr,
        first_order: bool | None = None,
        hyperparameters: Hyperparameters | None = None,
        update: str = "gradient",
        estimator: Estimator | str | None = None,
        data_parallel: bool = False,
        **others: Any,
    ) -> None:
        super().__init__()
        sizes = {
            "train_ways": train_ways,
            "train_shots": train_shots,
            "train_queries": train_queries,
            "test_ways": test_ways,
            "test_shots": test_shots,
            "test_queries": test_queries,
            "adaptation_steps": adaptation_steps,
        }
        for name, size in sizes.items():
            least = 0 if name == "adaptation_steps" else 1
            if size < least:
                raise ValueError(f"expected {name} of at least {least}, got {size}")
        if train_ways != test_ways:
            raise ValueError(
                f"expected as many test_ways as train_ways, got {test_ways} and "
                f"{train_ways}: the model's outputs stand for the classes of a task, "
                f"and adaptation does not add outputs"
            )
        if data_parallel:
            raise ValueError(
                "data_parallel=True is not supported: replicas of nn.DataParallel do "
                "not remember how their outputs were computed. Leave it out and create "
                "the Trainer with strategy='ddp'"
            )
        settings = {
            **sizes,
            "lr": lr,
            "scheduler_step": scheduler_step,
            "scheduler_decay": scheduler_decay,
            "adaptation_lr": adaptation_lr,
            "first_order": first_order,
            "update": update,
        }
        if estimator is None or isinstance(estimator, str):
            settings["estimator"] = estimator  # checkpoints hold only plain values
        for name, value in settings.items():
            setattr(self, name, value)
        self.save_hyperparameters(settings)
        self.loss = nn.CrossEntropyLoss() if loss is None else loss
        # A list, because an iterator could not be read twice.
        chosen = None if hyperparameters is None else listed(hyperparameters)
        # Set before the model, so that a deep copy of this module copies these
        # parameters before the model's references to them.
        self.outside = _outside(chosen, [model, self])
        self.model = EvoGradMetaOptimizer(
            model,
            lr=adaptation_lr,
            first_order=first_order,
            hyperparameters=chosen,
            update=update,
            estimator=estimator,
        )
        self._seed = self.model.generator.initial_seed()
        self._done = 0
        self._resumed: dict[str, Any] | None = None

    @staticmethod
    def add_model_specific_args(parent_parser: ArgumentParser) -> ArgumentParser:
        """Return a parser with the options of this module added to the parent's."""
        parser = LightningEpisodicModule.add_model_specific_args(parent_parser)
        here = LightningEvoGrad
        parser.add_argument(
            "--adaptation_steps", type=int, default=here.adaptation_steps
        )
        parser.add_argument("--adaptation_lr", type=float, default=here.adaptation_lr)
        parser.add_argument("--first_order", action="store_true", default=None)
        parser.add_argument(
            "--update", choices=("gradient", "evolution"), default="gradient"
        )
        parser.add_argument("--estimator", choices=("guided", "evograd", "exact"))
        return parser

    def inner_loss(
        self, learner: EvoGradMetaOptimizer, data: Tensor, labels: Tensor
    ) -> Tensor:
        """Return the loss that adaptation lowers; by default ``loss`` of the outputs.

        Override this method if hyperparameters act only in the inner loss, such as
        weights of the images, a learned loss, or feature-wise transformation.

        Args:
            learner: the clone that is being adapted; for a batch of several tasks a
                copy of the model.
            data: support images, shape (ways · shots, ...).
            labels: labels of these images, shape (ways · shots,).
        """
        return self.loss(learner(data), labels)

    def meta_learn(
        self, batch: Any, batch_idx: int, ways: int, shots: int, queries: int
    ) -> tuple[Tensor, Tensor]:
        """Adapt to a task and evaluate the adapted learner.

        Args:
            batch: images, shape (ways · (shots + queries), ...), and their labels; or
                several tasks, both with a leading task axis.
            batch_idx: the trainer's number of the task.
            ways: classes of the task.
            shots: images of each class to adapt to.
            queries: images of each class to evaluate on.

        Returns:
            The loss and the accuracy on the query images, means over the tasks. They
            have no graph if gradients are switched off when this is called.

        Raises:
            ValueError: if the batch does not have the number of images of a task.
        """
        training = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            data, labels = (_ordinary(tensor) for tensor in batch)
            support, query = _split(data, labels, ways, shots, queries)
            self.model.generator.manual_seed(self._next_seed(training, batch_idx))
            if labels.dim() == 2:
                return self._several(support, query, training)
            learner = self.model.clone(first_order=None if training else True)
            learner.train()
            for _ in range(self.adaptation_steps):
                learner.adapt(self.inner_loss(learner, *support))
            with torch.set_grad_enabled(training):
                outputs = learner(query[0])
                error = plain(self.loss(outputs, query[1]))
            return error, accuracy(plain(outputs), query[1])

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

    def log(self, name: str, value: Any, **options: Any) -> None:
        """Log a value as its mean over all processes."""
        super().log(name, value, **{"sync_dist": True, **options})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the seed and the random states that later steps draw from."""
        state = {"seed": self._seed, **random_state(self.device)}
        checkpoint[_CHECKPOINT_KEY] = {
            "done": self._done,
            "processes": _of_all_processes(state),
        }

    def setup(self, stage: str) -> None:
        """Forget the checkpoint of an earlier stage."""
        self._resumed = None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the saved random states until training continues.

        Testing a model does not change any random state. A checkpoint of
        ``LightningMAML`` has no saved random states and loads too.
        """
        self._resumed = checkpoint.get(_CHECKPOINT_KEY)

    def on_train_start(self) -> None:
        """Restore the random states of the checkpoint, if there is one."""
        saved, self._resumed = self._resumed, None
        if saved is None:
            return
        self._done = saved["done"]
        # With another number of processes, the saved states do not fit.
        if len(saved["processes"]) == self.trainer.world_size:
            state = saved["processes"][self.global_rank]
            self._seed = state["seed"]
            set_random_state(state, self.device)

    def _next_seed(self, training: bool, batch_idx: int) -> int:
        # Each task and process gets different perturbations. Evaluation does not change
        # the perturbations of training.
        if not training:
            return derive_seed(self._seed, "evaluation", self.global_rank, batch_idx)
        self._done += 1
        return derive_seed(self._seed, "training", self.global_rank, self._done)


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


def _ordinary(tensor: Tensor) -> Tensor:
    # Autograd cannot save inference tensors for a backward pass.
    return tensor.clone() if tensor.is_inference() else tensor


def _split(
    data: Tensor, labels: Tensor, ways: int, shots: int, queries: int
) -> tuple[Pair, Pair]:
    """Return support and query images with their labels, in the order of the task."""
    each = shots + queries
    axis = labels.dim() - 1  # 1 if there is a leading task axis
    if data.shape[axis] != ways * each:
        raise ValueError(
            f"expected a task of {ways} ways · ({shots} shots + {queries} queries) = "
            f"{ways * each} images, those of each class side by side, got "
            f"{data.shape[axis]}; "
            f"make tasks of {each} samples per class, or change shots and queries to "
            f"fit. With a DataLoader use batch_size=None: a batch is one task"
        )
    is_support = (torch.arange(ways * each, device=data.device) % each) < shots
    places = is_support.nonzero()[:, 0], (~is_support).nonzero()[:, 0]
    support, query = (
        (data.index_select(axis, chosen), labels.index_select(axis, chosen))
        for chosen in places
    )
    return support, query


def _of_all_processes(value: dict[str, Any]) -> list[dict[str, Any]]:
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values
