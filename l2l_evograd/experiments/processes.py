"""A run in several processes. All of them compute; only the first writes and prints.

Every process runs the whole command. The first one starts the others when the first
training begins, unless ``torchrun`` has started all of them at once. None of them goes
on without the others: when one ends before its time, the first one ends the rest.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

from rich.console import Console
from torch import distributed

from l2l_evograd import interrupts
from l2l_evograd.checks import InputError
from l2l_evograd.experiments.values import shown, whole_number

# Seconds in which processes that have the same work end after each other.
_TOGETHER = 10.0

# Variables of the environment in which launchers number processes, as Lightning reads
# them.
_NUMBERS = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"),
    *("SLURM_PROCID", "JSM_NAMESPACE_RANK"),
)

_others: list[subprocess.Popen[bytes]] = []


class ProcessDiedError(InputError):
    """Another process of the run has ended before its time."""


def check_ranks() -> None:
    """Refuse an environment in which processes are numbered by something else.

    Raises:
        InputError: names the variable.
    """
    for name in _NUMBERS:
        value = os.environ.get(name, "0")
        try:
            whole_number(value)
        except ValueError:
            raise InputError(
                f"expected {name} in the environment to be a whole number, got "
                f"{shown(value)}; a launcher such as torchrun sets it: unset {name}"
            ) from None


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


def start_others(devices: int) -> None:
    """Start the other processes of this machine, if nothing has started them yet.

    They run this process's command line again, with the variables of the environment
    that Lightning expects of a launcher. Lightning's own launcher would kill this
    process without a word when another one dies, up to five seconds later.

    Args:
        devices: number of processes, with this one.
    """
    if devices == 1 or "LOCAL_RANK" in os.environ:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "NODE_RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": str(devices),
        interrupts.FIRST: str(os.getpid()),
    }
    interrupts.at_end(_end_others)
    for number in range(1, devices):
        process = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            env={**os.environ, "LOCAL_RANK": str(number)},
        )
        _others.append(process)
        threading.Thread(target=_watch, args=(process, number), daemon=True).start()


def check_others() -> None:
    """Raise an error that tells of another process, if that has ended too early.

    It is called after an error of this process, which the end of the other one may have
    caused.

    Raises:
        ProcessDiedError: if another process has died.
        Interrupt: if another process was interrupted.
    """
    deadline = time.monotonic() + 1.0
    while _others and time.monotonic() < deadline:
        for number, process in enumerate(_others, start=1):
            if code := process.poll():
                if _signal(code) is not None:
                    raise interrupts.Interrupt(number=_signal(code) or 0)
                raise ProcessDiedError(_told(number, code))
        time.sleep(0.05)


def _watch(process: subprocess.Popen[bytes], number: int) -> None:
    """Wait for a process, and end this one if it has ended before its time."""
    code = process.wait()
    guard = interrupts.current()
    if not code or guard is None or process not in _others:
        return
    came = _signal(code)
    if came is not None:
        guard.interrupt(came)
    else:
        # One that was refused has printed why.
        guard.fail("" if code == 2 else _told(number, code))


def _signal(code: int) -> int | None:
    """Return the signal that interrupted a process with an exit code, if one did."""
    number = -code if code < 0 else code - 128
    return number if number in interrupts.SIGNALS else None


def _told(number: int, code: int) -> str:
    how = f"exit code {code}"
    if code < 0:
        how = f"signal {signal.Signals(-code).name}"
    return (
        f"process {number + 1} of {len(_others) + 1} has died ({how}), for example "
        f"because memory ran out; continue with --resume"
    )


def _end_others(failed: bool) -> None:
    """End the other processes. After a success they are about to end by themselves."""
    ended = list(_others)
    _others.clear()  # their ends are no news any more
    deadline = time.monotonic() + (0.0 if failed else _TOGETHER)
    for process in ended:
        try:
            process.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
