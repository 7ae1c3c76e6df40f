"""Commands and trainings in processes of their own, and in several at once."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

ALONE = [sys.executable]
TORCHRUN = [*ALONE, "-m", "torch.distributed.run", "--standalone"]
TORCHRUN += ["--nproc-per-node", "2"]

# What need not come out the same.
COSTS = ("seconds_per_iteration", "peak_memory_bytes")


# Lightning asks newer releases of torch in a way that they deprecate.
quiet = pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\)")


class Kept(pl.Callback):
    """Leaves what every process ended with in a file."""

    def __init__(self, folder: Path, kept: Callable[[Any], dict[str, Any]]) -> None:
        self.folder = folder
        self.kept = kept

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        name = f"{trainer.world_size}-{pl_module.global_rank}.pt"
        torch.save(self.kept(pl_module), self.folder / name)


def fitted(
    module: pl.LightningModule,
    folder: Path,
    devices: int,
    epochs: int,
    kept: Callable[[Any], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Return what is kept of a training, for each of the processes that shared it."""
    trainer = pl.Trainer(
        max_epochs=epochs,
        reload_dataloaders_every_n_epochs=1,
        strategy="ddp_fork" if devices > 1 else "auto",
        devices=devices,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Kept(folder, kept)],
    )
    with warnings.catch_warnings():
        # Two candidates often differ by more than the temperature.
        warnings.filterwarnings("ignore", "the effective number of candidates")
        trainer.fit(module)
    return [torch.load(folder / f"{devices}-{rank}.pt") for rank in range(devices)]


def start(launcher: Sequence[str], *line: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"):
        environment.pop(name, None)
    return subprocess.Popen(
        [*launcher, "-m", "l2l_evograd.cli", *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def end(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    # learn2learn imports gym, which prints a notice; no process may pass it on.
    assert "gym" not in (output + errors).lower()
    return output


def figures(out: Path) -> list[dict[str, Any]]:
    runs = json.loads((out / "results.json").read_text())["runs"]
    return [{k: v for k, v in run.items() if k not in COSTS} for run in runs]


def killed_and_gone_on_with(
    folder: Path, line: Sequence[str], last: str, said: str
) -> Path:
    """Check that a command in two processes that is killed ends as one that is not.

    ``last`` is the second of two methods, in whose training it is killed; ``said`` is
    what is said once when that ends. Returns the folder of the run that was killed.
    """
    parts, whole = folder / "parts", folder / "whole"
    process = start(ALONE, *line, "--out", str(parts))
    checkpoint = parts / "checkpoints" / f"0-{last}.ckpt"
    deadline = time.monotonic() + 200
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)  # the other process notices and ends as well
    output = end(start(ALONE, line[0], "--resume", "--out", str(parts)))
    assert output.count(said) == 1
    launched = end(start(TORCHRUN, *line, "--out", str(whole)))
    assert launched.count(said) == 1
    assert figures(parts) == figures(whole) and len(figures(whole)) == 2
    return parts
