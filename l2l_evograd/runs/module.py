"""What all trainings share as Lightning modules.

All randomness is drawn from (seed, iteration), see ``randomness.py``. A checkpoint
therefore holds weights, optimizers and what was recorded so far, and a run that goes
on from one does exactly what it would have done.
"""

import time
from collections.abc import Iterator
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch


class Numbered:
    """The numbers ``start`` to ``stop`` - 1, for a trainer to iterate over.

    A sampler that can be iterated again and has a length, where a ``DataLoader``
    would bring workers that have nothing to do.
    """

    def __init__(self, start: int, stop: int) -> None:
        self._numbers = range(start, stop)

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)


class RecordingModule(pl.LightningModule):
    """A Lightning module that counts its iterations and keeps their figures.

    Attributes:
        losses: of the iterations done.
        seconds: that each of them took.
        recorded: the names of all such lists, which go into checkpoints.
    """

    recorded: ClassVar[tuple[str, ...]] = ("losses", "seconds")

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.losses: list[float] = []
        self.seconds: list[float] = []

    @property
    def figures(self) -> dict[str, float]:
        """What is shown and logged of the last iteration besides its loss."""
        return {}

    @property
    def done(self) -> int:
        """How many iterations have been made."""
        return len(self.losses)

    def close(self) -> None:
        """Give back what training needed, however it ended."""

    def plain_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return the optimizers as torch knows them, without Lightning's wrapper."""
        optimizers: Any = self.optimizers(use_pl_optimizer=False)
        return list(optimizers) if isinstance(optimizers, list) else [optimizers]

    def iterate(self, iteration: int) -> float:
        """Make one iteration and return its loss."""
        raise NotImplementedError(f"{type(self).__name__} lacks the method iterate")

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Make iteration number ``batch``, timed."""
        started = time.perf_counter()
        loss = self.iterate(batch)
        self.seconds.append(time.perf_counter() - started)
        self.losses.append(loss)
        figures = {"loss": loss, "seconds": self.seconds[-1], **self.figures}
        for logger in self.loggers:
            logger.log_metrics(figures, step=batch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the figures into the checkpoint."""
        for name in self.recorded:
            checkpoint[name] = list(getattr(self, name))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the figures out of the checkpoint."""
        for name in self.recorded:
            setattr(self, name, list(checkpoint[name]))
