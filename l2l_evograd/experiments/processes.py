"""A run in several processes. All of them compute; only the first writes and prints.

Every process runs the whole command. Lightning starts the other processes when the
first training begins, unless ``torchrun`` has started all of them at once.
"""

import os

from rich.console import Console
from torch import distributed


def leads(processes: int) -> bool:
    """Return whether this process writes files and prints.

    Args:
        processes: number of processes of the run. If there is only one, the
            environment is ignored, because a scheduler may have numbered independent
            runs.
    """
    if processes == 1:
        return True
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def console_of(processes: int, console: Console | None) -> Console:
    """Return the console to print on; a silent console if another process prints."""
    if not leads(processes):
        return Console(quiet=True)
    return console or Console()


def join(processes: int, device: str) -> None:
    """Form a process group, if ``torchrun`` started the processes."""
    if processes == 1 or not distributed.is_torchelastic_launched():
        return
    if not distributed.is_initialized():
        distributed.init_process_group("gloo" if device == "cpu" else "nccl")


def wait() -> None:
    """Wait until all processes of the group reach this call, if there is a group."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
