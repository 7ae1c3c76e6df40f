"""Checks of the devices and the number of processes that a run asks for."""

import torch
from torch import distributed

from l2l_evograd.checks import InputError


def check_device(name: str) -> None:
    """Refuse a device that is unknown or that this machine does not have.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        InputError: for any other name, or if there is no such device.
    """
    if name == "auto":
        return
    choices = "choose from auto, cpu, cuda, cuda:N"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device {name!r}; {choices}") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r} is not supported here; {choices}")
    there = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= there:
        raise InputError(
            f"device {name!r} does not exist: torch finds {there} CUDA devices; choose "
            f"cpu or auto"
        )


def found_device(name: str) -> str:
    """Return the name of the device; for "auto", an accelerator if there is one."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_devices(devices: int, device: str) -> None:
    """Refuse more processes than there are accelerators.

    Args:
        devices: number of processes on each machine.
        device: device name from the settings.

    Raises:
        InputError: if there are fewer accelerators than processes, or if ``device``
            has a number.
    """
    if devices == 1:
        return
    if ":" in device:
        raise InputError(
            f"expected device 'cuda' or 'cpu' with {devices} devices, got {device!r}: "
            f"the run uses the first {devices}; choose others with CUDA_VISIBLE_DEVICES"
        )
    there = torch.cuda.device_count()
    if device != "cpu" and there and devices > there:
        raise InputError(
            f"expected at most {there} devices, the number that torch finds, got "
            f"{devices}; lower --devices"
        )


def check_nodes(nodes: int) -> None:
    """Refuse several machines unless ``torchrun`` has started the processes.

    Raises:
        InputError: if there are several machines but ``torchrun`` was not used.
    """
    if nodes > 1 and not distributed.is_torchelastic_launched():
        raise InputError(
            f"expected torchrun to start the processes of {nodes} nodes, got a process "
            f"that it did not start; run on each node: torchrun --nnodes {nodes} "
            f"--nproc-per-node DEVICES -m l2l_evograd.cli ..."
        )
