"""Checkpoints. Each is written whole or not at all, and belongs to one training.

A checkpoint contains a digest of its content and the identity of its training. Two
generations are kept; see :mod:`~l2l_evograd.experiments.sealed`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import CheckpointIO

from l2l_evograd.checks import InputError
from l2l_evograd.data.regular_files import open_regular
from l2l_evograd.experiments.digests import digest_of_state
from l2l_evograd.experiments.files import no_space, write_whole
from l2l_evograd.experiments.sealed import (
    DIGEST,
    damaged,
    exists,
    last_good,
    previous,
)

_IDENTITY = "identity"


class Saver(Checkpoint):
    """Writes a checkpoint after each block of iterations.

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
        try:
            trainer.save_checkpoint(self._path)  # only the first process writes
        except (OSError, RuntimeError) as error:
            if not no_space(error):
                raise
            kept = (
                "the previous checkpoint is kept"
                if exists(self._path)
                else "there is no previous checkpoint"
            )
            raise InputError(
                f"not enough space to write the checkpoint {self._path} "
                f"({_reason(error)}); {kept}; free space and continue with --resume"
            ) from error


class SealedIO(CheckpointIO):
    """The part of Lightning's trainer that writes and reads checkpoints.

    Args:
        found: the checkpoint to go on from, which is then given to Lightning; None: no
            checkpoint is read.
    """

    def __init__(self, found: "Found | None") -> None:
        self._found = found
        self._in_the_way = found is not None and bool(found.wrong)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint with its digest in one step, and keep the one before."""
        path = Path(path)
        content = {**checkpoint, DIGEST: digest_of_state(checkpoint)}
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._in_the_way:  # it must not take the place of the good generation
            os.replace(path, damaged(path))
            self._in_the_way = False

        def write(place: Path) -> None:
            # Given a path, torch would write itself, and lose the system's error.
            with place.open("wb") as file:
                torch.save(content, file)

        write_whole(path, write, previous(path))

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Return the checkpoint, which is given away to save memory."""
        found, self._found = self._found, None
        if found is None or found.path != Path(path):
            raise ValueError(f"the checkpoint {path} was not checked before")
        return found.content

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint."""
        Path(path).unlink(missing_ok=True)


class Found(NamedTuple):
    """A checkpoint that was checked.

    Attributes:
        content: what it contains, on the CPU.
        path: its path, which may be that of the generation before.
        wrong: what is wrong with the newest generation; "" if nothing is.
    """

    content: dict[str, Any]
    path: Path
    wrong: str


def find_checkpoint(path: Path, identity: Mapping[str, Any] | None) -> Found | None:
    """Return the newest good checkpoint; None if there is none.

    Args:
        path: path of the checkpoint.
        identity: the training that the checkpoint must belong to; None: any training.

    Raises:
        InputError: if all generations are damaged, or if the checkpoint belongs to
            another training; the message names the difference.
    """
    if not exists(path):
        return None
    try:
        found = Found(*last_good(path, _read))
    except InputError as error:
        raise InputError(
            f"{error}; remove it to train this part again, or start over with "
            f"--overwrite"
        ) from error
    if identity is not None:
        _check_identity(found.path, found.content.get(_IDENTITY), identity)
    return found


def _read(path: Path) -> dict[str, Any]:
    """Return the content of one checkpoint, without its digest."""
    try:
        with open_regular(path) as file:
            saved = torch.load(file, map_location="cpu", weights_only=True)
            found = saved.pop(DIGEST, None) if isinstance(saved, dict) else None
            digest = digest_of_state(saved)
    except InputError:
        raise
    except Exception as error:  # torch raises many types for damaged files
        raise InputError(
            f"cannot open the checkpoint {path} ({_reason(error)})"
        ) from error
    if not isinstance(saved, dict) or "losses" not in saved or found is None:
        raise InputError(
            f"expected {path} to be a checkpoint of this version, got another file"
        )
    if found != digest:
        raise InputError(
            f"the checkpoint {path} is damaged: it does not agree with its digest"
        )
    return saved


def _check_identity(path: Path, there: Any, here: Mapping[str, Any]) -> None:
    if not isinstance(there, Mapping):
        there = {}
    different = [
        f"{name} is {there.get(name, 'missing')!r} in the checkpoint, "
        f"{here.get(name, 'missing')!r} in this run"
        for name in {**here, **there}
        if there.get(name) != here.get(name)
    ]
    if different:
        raise InputError(
            f"the checkpoint {path} belongs to another training: "
            f"{'; '.join(different)}; use the values of the checkpoint, or start over "
            f"with --overwrite"
        )


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
