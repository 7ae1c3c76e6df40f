"""Checks of the devices and the number of processes that a run asks for."""

import os
import re

import torch
from torch import distributed

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.values import shown

# A device with a number, without leading zeros, so that each has one name.
_CUDA = re.compile(r"cuda(?::(0|[1-9][0-9]{0,8}))?")

# The largest number of processes on the CPU for each of its cores.
_EACH_CORE = 4


def check_device(name: str) -> None:
    """Refuse a device that is unknown or that this machine does not have.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        InputError: for any other name, or if there is no such device.
    """
    if name in ("auto", "cpu"):
        return
    parts = _CUDA.fullmatch(name)
    if parts is None:
        raise InputError(
            f"unknown device {shown(name)}; choose from auto, cpu, cuda, cuda:N"
        )
    there = torch.cuda.device_count()
    if int(parts[1] or 0) >= there:
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
    """Refuse more processes than there are accelerators, or than cores can serve.

    Args:
        devices: number of processes on each machine.
        device: device name from the settings.

    Raises:
        InputError: if there are fewer accelerators than processes, if there are no
            accelerators and far fewer cores, or if ``device`` has a number.
    """
    if devices == 1:
        return
    if ":" in device:
        raise InputError(
            f"expected device 'cuda' or 'cpu' with {devices} devices, got {device!r}: "
            f"the run uses the first {devices}; choose others with CUDA_VISIBLE_DEVICES"
        )
    cores = os.cpu_count() or 1
    there = 0 if device == "cpu" else torch.cuda.device_count()
    if not there and devices > max(_EACH_CORE * cores, 2 * _EACH_CORE):
        raise InputError(
            f"expected at most {_EACH_CORE} processes for each of the {cores} cores of "
            f"the CPU, got {devices} devices; lower --devices"
        )
    if there and devices > there:
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
