"""A run in several processes: all compute, the first one writes and speaks.

Every process runs the whole command. Without a launcher of one's own Lightning starts
the others when the first training begins; ``torchrun`` starts all at once.
"""

import os

import torch
from rich.console import Console
from torch import distributed

from l2l_evograd.runs.settings import check_whole


def leads(processes: int) -> bool:
    """Say whether this process writes and speaks.

    Args:
        processes: of the run. With one the environment does not matter, so that runs
            which a scheduler numbers do not take each other for company.
    """
    if processes == 1:
        return True
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def console_of(processes: int, console: Console | None) -> Console:
    """Return the console to speak on, a silent one where another process speaks."""
    if not leads(processes):
        return Console(quiet=True)
    return console or Console()


def join(processes: int, device: str) -> None:
    """Meet the processes that ``torchrun`` has started beside this one, if it has."""
    if processes == 1 or not distributed.is_torchelastic_launched():
        return
    if not distributed.is_initialized():
        distributed.init_process_group("gloo" if device == "cpu" else "nccl")


def wait() -> None:
    """Wait for the other processes, where there are any by now."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def check_nodes(nodes: int) -> None:
    """Refuse a number of machines that nobody has started processes on.

    Raises:
        ValueError, TypeError: if it is no number of at least 1, or for several without
            ``torchrun``.
    """
    check_whole("nodes", nodes, 1)
    if nodes > 1 and not distributed.is_torchelastic_launched():
        raise ValueError(
            f"expected {nodes} nodes to be started by torchrun: torchrun --nnodes "
            f"{nodes} --nproc-per-node DEVICES -m l2l_evograd.cli ... on each of them"
        )


def check_devices(devices: int, device: str, batch_size: int | None = None) -> None:
    """Refuse a number of processes that there is nothing for.

    Args:
        devices: how many, on each machine.
        device: as in the settings.
        batch_size: of the batches that they share; None: they share none.

    Raises:
        ValueError, TypeError: if it is no number of at least 1, if batches cannot be
            shared out equally, or if there are not as many accelerators.
    """
    check_whole("devices", devices, 1)
    if devices == 1:
        return
    if batch_size is not None and batch_size % devices:
        raise ValueError(
            f"expected a batch_size that {devices} devices can share equally, got "
            f"{batch_size}; use {batch_size // devices * devices or devices}"
        )
    if ":" in device:
        raise ValueError(
            f"expected device 'cuda' or 'cpu' with {devices} devices, got {device!r}: "
            f"the first ones are taken; choose others by CUDA_VISIBLE_DEVICES"
        )
    there = torch.cuda.device_count()
    if device != "cpu" and there and devices > there:
        raise ValueError(
            f"expected at most {there} devices, as torch sees no more, got {devices}; "
            f"lower --devices"
        )
