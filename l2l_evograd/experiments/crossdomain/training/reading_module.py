"""The base class of trainings that can read their data ahead in worker processes."""

from collections.abc import Callable
from typing import Any

from torch import nn

from l2l_evograd.experiments.crossdomain.data.loading import Ahead
from l2l_evograd.experiments.training_module import TrainingModule


class ReadingModule(TrainingModule):
    """A training in which each process draws its data by the number of the iteration.

    Args:
        encoder: encoder whose buffers all processes copy from the first process at the
            end of each block.
        precision: one of :data:`~l2l_evograd.experiments.precision.PRECISIONS`.
        workers: number of processes that read images in advance; 0: none.

    Attributes:
        drawn: data of the current iteration.
    """

    def __init__(self, encoder: nn.Module, precision: str, workers: int) -> None:
        super().__init__(precision)
        self._encoder = [encoder]  # the list keeps it out of the state dict
        self._workers = workers
        self._ahead: Ahead | None = None
        self.drawn: Any = None

    def draws(self) -> Callable[[int], Any]:
        """Return a function that maps an iteration to the data of this process."""
        raise NotImplementedError(f"{type(self).__name__} lacks the method draws")

    def on_fit_start(self) -> None:
        """Join the other processes, and prepare the workers."""
        super().on_fit_start()
        self._ahead = Ahead(self.draws(), self.total, self._workers)

    def on_train_epoch_end(self) -> None:
        """Copy the buffers of the first process to all processes."""
        self.processes.follow_first(list(self._encoder[0].buffers()))

    def close(self) -> None:
        """End the workers."""
        if self._ahead is not None:
            self._ahead.close()

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Get the data of iteration ``batch``, then run and time the iteration."""
        if self._ahead is None:
            raise RuntimeError("expected training_step to be called by a trainer's fit")
        self.drawn = self._ahead.take(batch).to(self.device)
        super().training_step(batch, batch_idx)
