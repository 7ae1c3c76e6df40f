"""What pre-training and meta-training share: processes, precision, reading ahead."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from l2l_evograd.distributed import Processes
from l2l_evograd.fewshot.loading import Ahead
from l2l_evograd.runs.module import Numbered, RecordingModule
from l2l_evograd.runs.precision import LossScale, autocast


class TrainingModule(RecordingModule):
    """A training in which each process draws what it sees by the iteration's number.

    Args:
        encoder: whose buffers all processes have from the first one, at the end of
            each block.
        precision: one of :data:`~l2l_evograd.runs.precision.PRECISIONS`.
        workers: processes that read images ahead; 0: none.

    Attributes:
        processes: known from the start of a fit.
        scale: of the losses, in float16 alone.
        drawn: what the present iteration sees.
        scaling: state of the scale.
    """

    recorded = (*RecordingModule.recorded, "scaling")

    def __init__(self, encoder: nn.Module, precision: str, workers: int) -> None:
        super().__init__()
        self._encoder = [encoder]  # in a list, which hides it from the state dict
        self._precision = precision
        self._workers = workers
        self._ahead: Ahead | None = None
        self.processes = Processes()
        self.scale: LossScale | None = None
        self.drawn: Any = None
        self.scaling: list[float] = []

    def draws(self) -> Callable[[int], Any]:
        """Return what maps an iteration's number to what this process sees of it."""
        raise NotImplementedError(f"{type(self).__name__} lacks the method draws")

    @property
    def total(self) -> int:
        """How many iterations there are in all."""
        raise NotImplementedError(f"{type(self).__name__} lacks the property total")

    @property
    def block(self) -> int:
        """Iterations from one checkpoint to the next."""
        raise NotImplementedError(f"{type(self).__name__} lacks the property block")

    def on_fit_start(self) -> None:
        """Meet the other processes."""
        count = self.trainer.world_size
        self.processes = Processes(distributed.group.WORLD if count > 1 else None)
        if self._precision == "fp16":
            self.scale = LossScale(self.scaling)
        pin = self.device.type == "cuda"
        self._ahead = Ahead(self.draws(), self.total, self._workers, pin)

    def on_train_epoch_end(self) -> None:
        """Let all processes have the first one's buffers."""
        self.processes.follow_first(list(self._encoder[0].buffers()))

    def close(self) -> None:
        """End the processes that read images."""
        if self._ahead is not None:
            self._ahead.close()

    def train_dataloader(self) -> Numbered:
        """Return the numbers of the iterations up to the next checkpoint."""
        return Numbered(self.done, min(self.done + self.block, self.total))

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Take what iteration ``batch`` sees, then make it, timed."""
        if self._ahead is None:
            raise RuntimeError("expected training_step to be called by a trainer's fit")
        self.drawn = self._ahead.take(batch).to(self.device)
        super().training_step(batch, batch_idx)
        if self.scale is not None:
            self.scale.update()
            self.scaling = self.scale.state

    def scores_of(self, model: Callable[..., Any], *inputs: Any) -> Tensor:
        """Return what a model says in the training's precision, in float32 or more."""
        with autocast(self._precision, self.device):
            scores: Tensor = model(*inputs)
        return scores if self._precision == "32" else scores.float()

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss to differentiate: S times it in float16."""
        return loss if self.scale is None else self.scale.scaled(loss)

    def unscaled(self, loss: Tensor) -> Tensor:
        """Return the loss that was made S times as large, detached."""
        return loss.detach() / (1.0 if self.scale is None else self.scale.value)

    def average(self, parameters: Sequence[Tensor]) -> None:
        """Put means over the processes in the place of gradients, without the scale."""
        means = self.processes.mean([parameter.grad for parameter in parameters])
        for parameter, mean in zip(parameters, means, strict=True):
            parameter.grad = mean
        if self.scale is not None:
            self.scale.unscale(parameters)

    def common(self, *figures: Tensor) -> list[float]:
        """Return means of figures over the processes."""
        means = self.processes.means([torch.as_tensor(f).detach() for f in figures])
        return [float(mean) for mean in means]
