"""The base class of all training modules, which are Lightning modules.

All random numbers are derived from (seed, iteration); see ``seeds.py``. A checkpoint
therefore contains only weights, optimizers and recorded values, and a resumed run does
exactly what it would have done without the interruption.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, distributed

from l2l_evograd.distributed import Processes
from l2l_evograd.experiments.divergence import check_training_loss, check_weights
from l2l_evograd.experiments.precision import LossScale, autocast


class Numbered:
    """The numbers ``start`` to ``stop`` - 1, as a data loader for a trainer.

    A ``DataLoader`` over a range would start workers that do nothing.
    """

    def __init__(self, start: int, stop: int) -> None:
        self._numbers = range(start, stop)

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)


class TrainingModule(pl.LightningModule):
    """Training in numbered iterations, in one or several processes.

    A subclass sets :attr:`total` and :attr:`block` and defines :meth:`iterate`.

    Args:
        precision: one of :data:`~l2l_evograd.experiments.precision.PRECISIONS`.

    Attributes:
        total: number of iterations.
        block: number of iterations from one checkpoint to the next.
        losses: loss of each finished iteration.
        seconds: duration of each finished iteration.
        processes: the processes of the training; set when a fit starts.
        scale: scale of the losses; None except in float16.
        scaling: state of the scale.
        recorded: names of the lists that are stored in checkpoints.
    """

    recorded: ClassVar[tuple[str, ...]] = ("losses", "seconds", "scaling")
    total: int
    block: int

    def __init__(self, precision: str = "32") -> None:
        super().__init__()
        self.automatic_optimization = False
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.scaling: list[float] = []
        self.processes = Processes()
        self.scale: LossScale | None = None
        self._precision = precision

    @property
    def done(self) -> int:
        """Number of finished iterations."""
        return len(self.losses)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.total // self.block)

    @property
    def figures(self) -> dict[str, float]:
        """Values of the last iteration that are shown and logged besides its loss."""
        return {}

    def close(self) -> None:
        """Release the resources of the training, after success or after an error."""

    def iterate(self, iteration: int) -> float:
        """Run one iteration and return its loss."""
        raise NotImplementedError(f"{type(self).__name__} lacks the method iterate")

    def plain_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return torch's optimizers, without Lightning's wrappers."""
        optimizers: Any = self.optimizers(use_pl_optimizer=False)
        return list(optimizers) if isinstance(optimizers, list) else [optimizers]

    def train_dataloader(self) -> Numbered:
        """Return the numbers of the iterations up to the next checkpoint."""
        return Numbered(self.done, min(self.done + self.block, self.total))

    def on_fit_start(self) -> None:
        """Form a group with the other processes, and make the scale for float16."""
        count = self.trainer.world_size
        self.processes = Processes(distributed.group.WORLD if count > 1 else None)
        if self._precision == "fp16":
            self.scale = LossScale(self.scaling)

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Run iteration number ``batch``, and record its loss and duration.

        Raises:
            NotFiniteError: if the training has diverged.
        """
        started = time.perf_counter()
        loss = self.iterate(batch)
        if self.scale is None:  # in float16, the step of such a loss is left out
            check_training_loss(loss, batch)
        self.seconds.append(time.perf_counter() - started)
        self.losses.append(loss)
        if self.scale is not None:
            self.scale.update()
            self.scaling = self.scale.state
        figures = {"loss": loss, "seconds": self.seconds[-1], **self.figures}
        for logger in self.loggers:
            logger.log_metrics(figures, step=batch)

    def on_train_epoch_end(self) -> None:
        """Refuse weights that are not finite, before they are in a checkpoint."""
        check_weights(self)

    def step(
        self, optimizer: torch.optim.Optimizer, gradients: Sequence[Tensor | None]
    ) -> None:
        """Average gradients over the processes, and make a step of the optimizer.

        Args:
            optimizer: optimizer of the parameters that the gradients belong to.
            gradients: one gradient for each parameter, in the order of
                :func:`parameters_of`. They are gradients of losses that :meth:`scaled`
                returned. In float16, the step is left out if one of them is not
                finite.
        """
        parameters = parameters_of(optimizer)
        means = self.processes.mean(
            [None if grad is None else grad.detach() for grad in gradients]
        )
        for parameter, mean in zip(parameters, means, strict=True):
            parameter.grad = mean
        if self.scale is not None:
            self.scale.unscale(parameters)
        optimizer.step()

    def outputs(self, model: Callable[..., Any], *inputs: Any) -> Tensor:
        """Return the outputs of a model in the training's precision, as float32."""
        with autocast(self._precision, self.device):
            outputs: Tensor = model(*inputs)
        return outputs if self._precision == "32" else outputs.float()

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss to differentiate, which is scaled in float16."""
        return loss if self.scale is None else self.scale.scaled(loss)

    def unscaled(self, loss: Tensor) -> Tensor:
        """Return the loss before :meth:`scaled`, detached."""
        return loss.detach() / (1.0 if self.scale is None else self.scale.value)

    def common(self, *figures: Tensor) -> list[float]:
        """Return the mean of each value over the processes."""
        means = self.processes.means([torch.as_tensor(f).detach() for f in figures])
        return [float(mean) for mean in means]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the recorded lists into the checkpoint."""
        for name in self.recorded:
            checkpoint[name] = list(getattr(self, name))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the recorded lists from the checkpoint."""
        for name in self.recorded:
            setattr(self, name, list(checkpoint[name]))


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return all parameters of an optimizer."""
    return [p for group in optimizer.param_groups for p in group["params"]]
