"""Checkpoints. Each is written whole or not at all, and belongs to one training."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from l2l_evograd.checks import InputError

_IDENTITY = "identity"


class Saver(Checkpoint):
    """Writes a checkpoint under another name and renames it when it is complete.

    Args:
        path: path of the checkpoint.
        identity: the training that the checkpoint belongs to, as names and values that
            JSON can store.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any] | None = None) -> None:
        self._path = path
        self._identity = identity

    def on_save_checkpoint(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Add the identity of the training to the checkpoint."""
        if self._identity is not None:
            checkpoint[_IDENTITY] = dict(self._identity)

    def on_train_epoch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        """Save the checkpoint.

        Raises:
            InputError: if the disk is full; the previous checkpoint is kept.
        """
        unfinished = self._path.with_suffix(".unfinished")
        try:
            trainer.save_checkpoint(unfinished)  # only the first process writes
            if trainer.is_global_zero:
                os.replace(unfinished, self._path)
        except (OSError, RuntimeError) as error:
            unfinished.unlink(missing_ok=True)
            if not _no_space(error):
                raise
            kept = (
                "the previous checkpoint is kept"
                if self._path.exists()
                else "there is no previous checkpoint"
            )
            raise InputError(
                f"not enough space to write the checkpoint {self._path} "
                f"({_reason(error)}); {kept}; free space and continue with --resume"
            ) from error


def saved_for(path: Path, identity: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the content of a checkpoint, on the CPU; None if the file does not exist.

    Args:
        path: path of the checkpoint.
        identity: the training that the checkpoint must belong to; None: any training.

    Raises:
        InputError: if the checkpoint cannot be opened or belongs to another training;
            the message names the difference.
    """
    if not path.exists():
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for damaged files
        raise InputError(
            f"cannot open the checkpoint {path} ({_reason(error)}); remove it to train "
            f"this part again, or start over with --overwrite"
        ) from error
    if not isinstance(saved, dict) or "losses" not in saved:
        raise InputError(
            f"expected {path} to be a checkpoint of this package, got another file; "
            f"remove it, or start over with --overwrite"
        )
    if identity is not None:
        _check_identity(path, saved.get(_IDENTITY), identity)
    return saved


def _check_identity(path: Path, there: Any, here: Mapping[str, Any]) -> None:
    if not isinstance(there, Mapping):
        there = {}
    different = [
        f"{name} is {there.get(name, 'missing')!r} in the checkpoint, "
        f"{here.get(name)!r} in this run"
        for name in {**here, **there}
        if there.get(name) != here.get(name)
    ]
    if different:
        raise InputError(
            f"the checkpoint {path} belongs to another training: "
            f"{'; '.join(different)}; use the values of the checkpoint, or start over "
            f"with --overwrite"
        )


def _no_space(error: BaseException) -> bool:
    """Return whether a full disk caused an error."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _NO_SPACE:
            return True
        # torch's writer raises this error when it cannot write the whole file.
        if "PytorchStreamWriter failed" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
