"""``EpisodicLearner``: what the Lightning modules of all algorithms have in common."""

import abc
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from l2l_evograd.algorithms.base_learner import BaseLearner
from l2l_evograd.checks import (
    NotFiniteError,
    check_count,
    check_loss,
    check_not_negative,
    check_positive,
)
from l2l_evograd.finite import POLICIES, check_policy, check_tensors
from l2l_evograd.replay.tensor import plain
from l2l_evograd.seeds import (
    derive_seed,
    random_state,
    set_random_state,
)
from l2l_evograd.undo import undo_for

try:
    import pytorch_lightning  # noqa: F401  # learn2learn's modules hide that it is missing
    from learn2learn.algorithms.lightning import LightningEpisodicModule
    from learn2learn.utils import accuracy
except ModuleNotFoundError as error:
    missing = str(error.name).partition(".")[0]
    raise ModuleNotFoundError(
        f"l2l_evograd.lightning needs {missing}, which is not installed: "
        f"pip install 'l2l-evograd[fewshot]'",
        name=error.name,
    ) from error

__all__ = ["EpisodicLearner", "Pair", "accuracy"]

_CHECKPOINT_KEY = "evograd"

Pair = tuple[Tensor, Tensor]


class EpisodicLearner(LightningEpisodicModule, abc.ABC):
    """Meta-learn a model on few-shot tasks; a subclass carries out one episode.

    Args:
        loss: function of outputs and labels; None: cross entropy.
        own: settings of the subclass, which checkpoints store as well.
        train_ways, train_shots, train_queries: as for
            :class:`~l2l_evograd.lightning.LightningEvoGrad`, and so are the following.
        test_ways, test_shots, test_queries: likewise.
        lr, scheduler_step, scheduler_decay: likewise.
        adaptation_steps, adaptation_lr: likewise.
        data_parallel: refused if True.
        nan_policy: as for :class:`~l2l_evograd.lightning.LightningEvoGrad`.
        **others: ignored.

    Raises:
        ValueError: for numbers below their least, or different numbers of ways.
    """

    adaptation_steps = 1
    adaptation_lr = 0.1
    nan_policy = "raise"
    least_steps: ClassVar[int] = 1

    model: BaseLearner

    def __init__(
        self,
        loss: Callable[[Tensor, Tensor], Tensor] | None,
        own: Mapping[str, Any],
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
        data_parallel: bool = False,
        nan_policy: str = "raise",
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
            least = self.least_steps if name == "adaptation_steps" else 1
            sizes[name] = check_count(size, name, least)
        check_policy(nan_policy)
        lr = check_not_negative(lr, "lr")
        scheduler_step = check_count(scheduler_step, "scheduler_step")
        scheduler_decay = check_positive(scheduler_decay, "scheduler_decay")
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
        stored = {
            **sizes,
            "lr": lr,
            "scheduler_step": scheduler_step,
            "scheduler_decay": scheduler_decay,
            "adaptation_lr": adaptation_lr,
            "nan_policy": nan_policy,
            **own,
        }
        for name, value in stored.items():
            setattr(self, name, value)
        self.save_hyperparameters(stored)  # checkpoints hold only plain values
        self.loss = nn.CrossEntropyLoss() if loss is None else loss
        self.skipped = 0
        self._contributed = False
        self._done = 0
        self._resumed: dict[str, Any] | None = None

    def _take(self, model: BaseLearner) -> None:
        """Make an algorithm a part of this module."""
        self.model = model
        self._seed = model.generator.initial_seed()

    @staticmethod
    def add_model_specific_args(parent_parser: ArgumentParser) -> ArgumentParser:
        """Return a parser with the options of this module added to the parent's."""
        parser = LightningEpisodicModule.add_model_specific_args(parent_parser)
        here = EpisodicLearner
        parser.add_argument(
            "--adaptation_steps", type=int, default=here.adaptation_steps
        )
        parser.add_argument("--adaptation_lr", type=float, default=here.adaptation_lr)
        parser.add_argument("--nan_policy", choices=POLICIES, default="raise")
        return parser

    def inner_loss(self, learner: Any, data: Tensor, labels: Tensor) -> Tensor:
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
            if not training:
                return self._episode(support, query, training)
            left_out = self.model.skipped
            loss, share = self._episode(support, query, training)
            check_loss(loss, "the query loss", wait=self.nan_policy == "skip")
            self._check_complete(left_out)
            return loss, share

    def _adapt(self, learner: Any, support: Pair, training: bool) -> None:
        """Make one inner step; in training it must not be left out."""
        left_out = self.model.skipped
        learner.adapt(self.inner_loss(learner, *support))
        if training:
            self._check_complete(left_out)

    def _check_complete(self, left_out: int) -> None:
        """Raise an error if the model has left out more than ``left_out`` parts."""
        if self.model.skipped > left_out:
            raise NotFiniteError(
                "expected a training task to be finite, and a part of it was left out"
            )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a batch; one without gradient for a batch left out."""
        try:
            with undo_for(self.model):
                loss: Tensor = super().training_step(batch, batch_idx)
        except NotFiniteError:
            self._leave_out()
            # On the graph of all parameters, for the other processes of DDP.
            wanted = [p for p in self.parameters() if p.requires_grad]
            loss = torch.stack([(p * 0).sum() for p in wanted]).sum()
        else:
            self._contributed = True
        if self.nan_policy == "skip":
            self.log("train_skipped", float(self.skipped), reduce_fx="max")
        return loss

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Look at the meta-gradient; without one, nothing moves."""
        contributed, self._contributed = self._contributed, False
        plugin = self.trainer.precision_plugin
        if getattr(plugin, "scaler", None) is not None:
            return  # it looks at the gradients itself, and they may overflow
        gradients = [p.grad for p in self.parameters()]
        try:
            wait = self.nan_policy == "skip"
            check_tensors({"the meta-gradient": gradients}, wait=wait)
        except NotFiniteError:
            self._leave_out()
            contributed = False
        else:
            # Other processes have gradients of their own.
            contributed = contributed or self.trainer.world_size > 1
        if not contributed:
            optimizer.zero_grad(set_to_none=True)

    def _leave_out(self) -> None:
        """Count a batch, or raise the error that is being handled."""
        if self.nan_policy != "skip":
            raise  # noqa: PLE0704
        self.skipped += 1

    def _episode(
        self, support: Pair, query: Pair, training: bool
    ) -> tuple[Tensor, Tensor]:
        """Return loss and accuracy of one task, or of several with a leading axis."""
        if query[1].dim() == 1:
            return self._task(support, query, training)
        tasks = zip(*support, *query, strict=True)
        found = [self._task((a, b), (c, d), training) for a, b, c, d in tasks]
        losses, accuracies = zip(*found, strict=True)
        return torch.stack(losses).mean(), torch.stack(accuracies).mean()

    @abc.abstractmethod
    def _task(
        self, support: Pair, query: Pair, training: bool
    ) -> tuple[Tensor, Tensor]:
        """Adapt to one task; return loss and accuracy on its query.

        Args:
            support: images and labels to adapt to.
            query: images and labels to evaluate on.
            training: whether the loss carries the meta-gradient.
        """

    def _evaluated(
        self, learner: Any, query: Pair, training: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the query loss and the accuracy of a learner."""
        with torch.set_grad_enabled(training):
            outputs = learner(query[0])
            error = plain(self.loss(outputs, query[1]))
        return error, accuracy(plain(outputs), query[1])

    def log(self, name: str, value: Any, **options: Any) -> None:
        """Log a value as its mean over all processes."""
        super().log(name, value, **{"sync_dist": True, **options})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the seed and the random states that later steps draw from."""
        state = {"seed": self._seed, **random_state(self.device)}
        checkpoint[_CHECKPOINT_KEY] = {
            "done": self._done,
            "skipped": self.skipped,
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
        self.skipped = saved.get("skipped", 0)
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
