"""Commands in processes of their own, and in several at once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ALONE = [sys.executable]
TORCHRUN = [*ALONE, "-m", "torch.distributed.run", "--standalone"]
TORCHRUN += ["--nproc-per-node", "2"]

# What need not come out the same.
COSTS = ("seconds_per_iteration", "peak_memory_bytes")


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
