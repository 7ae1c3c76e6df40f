"""Running a Lightning module to its end, quietly, from its last checkpoint if any."""

import contextlib
import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException
from rich.console import Console
from rich.progress import TaskID

from l2l_evograd.runs.checkpoints import Saver, saved_for
from l2l_evograd.runs.command import progress_bar
from l2l_evograd.runs.folder import CHECKPOINTS, LOGS
from l2l_evograd.runs.module import RecordingModule


def train(
    module: RecordingModule,
    *,
    name: str,
    epochs: int,
    iterations: int,
    out: Path,
    device: torch.device,
    console: Console,
    devices: int = 1,
    nodes: int = 1,
    after_epoch: Callable[[int], None] | None = None,
    identity: Mapping[str, Any] | None = None,
) -> None:
    """Train ``module``, going on from its checkpoint where there is one.

    Writes ``out/checkpoints/NAME.ckpt`` after every epoch, by way of another file, and
    logs in ``out/logs/NAME/version_N``, a new N for each time the run goes on:
    ``metrics.csv`` and a file for TensorBoard.

    Args:
        module: what is trained; afterwards it is in the state it ended with.
        name: of the checkpoint and the log.
        epochs: Lightning's, counted from the beginning of the run.
        iterations: of all epochs together.
        out: folder of the run.
        device: where to train.
        console: of the progress bar.
        devices: how many processes train together, on each machine.
        nodes: how many machines.
        after_epoch: called with the number of iterations done, before the checkpoint
            is written, and once before the first iteration.
        identity: what a checkpoint must have been written for; None: anything.

    Raises:
        KeyboardInterrupt: where Lightning would end the process.
        ValueError: for a checkpoint that does not open, or of something else; if the
            disk is full; if there is not enough memory.
    """
    checkpoint = out / CHECKPOINTS / f"{name}.ckpt"
    saved = saved_for(checkpoint, identity)
    if saved is not None and len(saved["losses"]) >= iterations:
        module.load_state_dict(saved["state_dict"])
        module.on_load_checkpoint(saved)
        return
    together = devices * nodes > 1
    counted = together or device.type == "cpu"
    with _quiet():
        trainer = pl.Trainer(
            accelerator="cpu" if device.type == "cpu" else "gpu",
            devices=devices if counted else [device.index or 0],
            num_nodes=nodes,
            strategy="ddp" if together else "auto",
            max_epochs=epochs,
            logger=[
                CSVLogger(out / LOGS, name=name),
                TensorBoardLogger(out / LOGS, name=name),
            ],
            log_every_n_steps=1,
            callbacks=[
                _After(after_epoch),
                _Bar(console, name, iterations),
                Saver(checkpoint, identity),
            ],
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,  # every process draws what is its own
            enable_model_summary=False,
            enable_progress_bar=False,
            num_sanity_val_steps=0,
        )
        del saved  # Lightning reads it for itself
        start = str(checkpoint) if checkpoint.exists() else None
        try:
            with _interruptible():
                trainer.fit(module, ckpt_path=start)
        finally:
            module.close()


class _After(pl.Callback):
    """Calls a function between epochs; callbacks that save come after this one."""

    def __init__(self, function: Callable[[int], None] | None) -> None:
        self._function = function

    def on_train_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        if self._function is not None and _done(pl_module) == 0:
            self._function(0)

    def on_train_epoch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        if self._function is not None:
            self._function(_done(pl_module))


class _Bar(pl.Callback):
    """A progress bar on the console, which goes away when the training ends."""

    def __init__(self, console: Console, name: str, iterations: int) -> None:
        self._progress = progress_bar(console)
        self._name = name
        self._iterations = iterations
        self._task: TaskID | None = None

    def on_train_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        self._task = self._progress.add_task(
            self._name,
            total=self._iterations,
            completed=_done(pl_module),
            figures="",
        )
        self._progress.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        if self._task is not None and isinstance(pl_module, RecordingModule):
            shown = [f"loss {pl_module.losses[-1]:.3f}"]
            shown += [f"{name} {x:.3f}" for name, x in pl_module.figures.items()]
            shown.append(f"{pl_module.seconds[-1]:.2f} s/iteration")
            self._progress.update(
                self._task, completed=pl_module.done, figures=", ".join(shown)
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._progress.stop()

    def on_exception(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        exception: BaseException,
    ) -> None:
        self._progress.stop()


def _done(module: pl.LightningModule) -> int:
    return module.done if isinstance(module, RecordingModule) else 0


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's announcements back for a while, and one warning it causes."""
    loggers = [logging.getLogger(n) for n in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Lightning asks newer releases of torch in a way that they deprecate.
            warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let a KeyboardInterrupt be one, and make one of a request to terminate.

    Lightning turns both into the end of the process, the second one with the exit code
    of success, and leaves the first signal ignored, so that nobody could say how to go
    on.
    """
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit as error:
        terminated = isinstance(error, SIGTERMException)
        if terminated or isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    finally:
        if main and handler is not None:
            signal.signal(signal.SIGINT, handler)
