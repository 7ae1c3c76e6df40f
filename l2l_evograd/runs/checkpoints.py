"""Checkpoints: written whole or not at all, and read for the run they belong to."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

_IDENTITY = "identity"


class Saver(Checkpoint):
    """Writes a checkpoint beside its place and moves it there in one stroke.

    Args:
        path: its place.
        identity: what it is written for, as JSON knows it.
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
        """Put in what the checkpoint is written for."""
        if self._identity is not None:
            checkpoint[_IDENTITY] = dict(self._identity)

    def on_train_epoch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        """Save.

        Raises:
            ValueError: if the disk is full; the checkpoint before this one stays.
        """
        unfinished = self._path.with_suffix(".unfinished")
        try:
            trainer.save_checkpoint(unfinished)  # by the first process
            if trainer.is_global_zero:
                os.replace(unfinished, self._path)
        except (OSError, RuntimeError) as error:
            unfinished.unlink(missing_ok=True)
            if not _no_space(error):
                raise
            kept = "the one before it is whole" if self._path.exists() else "none is"
            raise ValueError(
                f"no room to write the checkpoint {self._path} ({_reason(error)}); "
                f"{kept}: free space and go on with --resume"
            ) from error


def saved_for(path: Path, identity: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what a checkpoint holds, on the CPU; None if there is none.

    Args:
        path: of the checkpoint.
        identity: what it must have been written for; None: anything.

    Raises:
        ValueError: if it does not open, or was written for something else, naming the
            difference.
    """
    if not path.exists():
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what the damage happens to lead to
        raise ValueError(
            f"the checkpoint {path} does not open ({_reason(error)}); remove it to "
            f"train this part anew, or start over with --overwrite"
        ) from error
    if not isinstance(saved, dict) or "losses" not in saved:
        raise ValueError(
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
        f"{name} is {there.get(name, 'not named')!r} there, {here.get(name)!r} here"
        for name in {**here, **there}
        if there.get(name) != here.get(name)
    ]
    if different:
        raise ValueError(
            f"the checkpoint {path} was written for something else: "
            f"{'; '.join(different)}; go on with what it was written for, or start "
            f"over with --overwrite"
        )


def _no_space(error: BaseException) -> bool:
    """Say whether an error, or what it came from, is a lack of space."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _NO_SPACE:
            return True
        # What torch's writer makes of a write that fell short.
        if "PytorchStreamWriter failed" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
