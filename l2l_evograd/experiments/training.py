"""Train a Lightning module to the end, from its last checkpoint if there is one."""

import contextlib
import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException
from rich.console import Console
from rich.progress import TaskID

from l2l_evograd import interrupts
from l2l_evograd.experiments.checkpoints import Saver, SealedIO, find_checkpoint
from l2l_evograd.experiments.experiment import say
from l2l_evograd.experiments.folder import CHECKPOINTS, LOGS
from l2l_evograd.experiments.processes import check_others, start_others
from l2l_evograd.experiments.progress import progress_bar
from l2l_evograd.experiments.training_module import TrainingModule


def train(
    module: TrainingModule,
    *,
    name: str,
    out: Path,
    device: torch.device,
    console: Console,
    devices: int = 1,
    nodes: int = 1,
    after_block: Callable[[int], None] | None = None,
    identity: Mapping[str, Any] | None = None,
) -> None:
    """Train ``module``, from its checkpoint if there is one.

    The training writes ``out/checkpoints/NAME.ckpt`` after every block of iterations.
    It writes logs to ``out/logs/NAME/version_N``: ``metrics.csv`` and a file for
    TensorBoard. N grows each time the run is resumed.

    Args:
        module: module to train. At the end it is in its final state.
        name: name of the checkpoint and the log.
        out: folder of the run.
        device: device on which to train.
        console: console for the progress bar.
        devices: number of processes that train together on each machine.
        nodes: number of machines.
        after_block: function that is called with the number of finished iterations,
            before each checkpoint is written and once before the first iteration.
        identity: the training that a checkpoint must belong to; None: any training.

    Raises:
        KeyboardInterrupt: where Lightning would end the process.
        ProcessDiedError: if another process of the training has died.
        InputError: if the checkpoint cannot be opened or belongs to another training,
            or if the disk is full.
    """
    checkpoint = out / CHECKPOINTS / f"{name}.ckpt"
    found = find_checkpoint(checkpoint, identity)
    if found is not None and found.wrong:
        say(console, f"{found.wrong}; going on from {found.path.name}")
    if found is not None and len(found.content["losses"]) >= module.total:
        module.load_state_dict(found.content["state_dict"])
        module.on_load_checkpoint(found.content)
        return
    start = None if found is None else str(found.path)
    together = devices * nodes > 1
    if together and nodes == 1:
        start_others(devices)
    counted = together or device.type == "cpu"
    with _quiet():
        table = CSVLogger(out / LOGS, name=name)
        board = TensorBoardLogger(out / LOGS, name=name, version=table.version)
        trainer = pl.Trainer(
            accelerator="cpu" if device.type == "cpu" else "gpu",
            devices=devices if counted else [device.index or 0],
            num_nodes=nodes,
            strategy="ddp" if together else "auto",
            max_epochs=module.blocks,
            logger=[table, board],
            log_every_n_steps=1,
            plugins=[SealedIO(found)],
            callbacks=[
                _Signals(),
                _After(after_block),
                _Bar(console, name),
                Saver(checkpoint, identity),
            ],
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,  # each process draws its own share
            enable_model_summary=False,
            enable_progress_bar=False,
            num_sanity_val_steps=0,
        )
        del found  # the trainer has it
        try:
            with _interruptible():
                trainer.fit(module, ckpt_path=start)
        finally:
            module.close()


class _Signals(pl.Callback):
    """Takes the signals from Lightning.

    Its handler of SIGTERM waits until all processes receive the signal, and then until
    they have finished an iteration.
    """

    def on_train_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        interrupts.check()


class _After(pl.Callback):
    """Calls a function between blocks, before the checkpoint is written."""

    def __init__(self, function: Callable[[int], None] | None) -> None:
        self._function = function

    def on_train_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        if self._function is not None and _training(pl_module).done == 0:
            self._function(0)

    def on_train_epoch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        if self._function is not None:
            self._function(_training(pl_module).done)


class _Bar(pl.Callback):
    """A progress bar on the console."""

    def __init__(self, console: Console, name: str) -> None:
        self._progress = progress_bar(console)
        self._name = name
        self._task: TaskID | None = None

    def on_train_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        self._task = self._progress.add_task(
            self._name,
            total=_training(pl_module).total,
            completed=_training(pl_module).done,
            figures="",
        )
        self._progress.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        if self._task is not None:
            module = _training(pl_module)
            shown = [f"loss {module.losses[-1]:.3f}"]
            shown += [f"{name} {x:.3f}" for name, x in module.figures.items()]
            shown.append(f"{module.seconds[-1]:.2f} s/iteration")
            self._progress.update(
                self._task, completed=module.done, figures=", ".join(shown)
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


def _training(module: pl.LightningModule) -> TrainingModule:
    return cast(TrainingModule, module)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's announcements and one warning that it causes."""
    loggers = [logging.getLogger(n) for n in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Lightning calls newer releases of torch in a deprecated way.
            warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Turn Lightning's exits into KeyboardInterrupt.

    Lightning ends the process after Ctrl-C and after SIGTERM. After SIGTERM, the exit
    code is that of success. Lightning also leaves SIGINT ignored. Callers could
    therefore not tell the user how to resume the run.
    """
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit as error:
        interrupts.check()
        terminated = isinstance(error, SIGTERMException)
        if terminated or isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    except Exception:
        interrupts.check()
        check_others()
        raise
    finally:
        if main and handler is not None:
            signal.signal(signal.SIGINT, handler)
    interrupts.check()
