"""Measurement of time and memory.

Each round calls every method once, so that a machine that slows down slows down all
methods alike. Each peak of memory is measured in a process of its own. A method that
fails gets a record that holds its error.
"""

import gc
import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from rich.console import Console
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from l2l_evograd.experiments.files import write_json
from l2l_evograd.experiments.folder import versions
from l2l_evograd.oracle.peak_memory import PeakMemory, give_back_free_memory

_PEERS = ("higher", "torchopt", "betty-ml", "torchvision")
_LONGEST = 160

Call = Callable[[], Any]
Found = TypeVar("Found")


class WarmedUp(NamedTuple):
    """The outcome of the first call of each method.

    Attributes:
        running: calls that succeeded, by the method's name.
        errors: errors of the calls that failed, each in one line.
    """

    running: dict[str, Call]
    errors: dict[str, str]


@contextmanager
def imports_frozen() -> Iterator[None]:
    """Keep everything that exists now out of garbage collections in the body.

    Measurements collect garbage often. Each collection would otherwise search all
    imported modules.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def warmed_up(
    calls: Mapping[str, Call],
    keep: Callable[[str, Any], object] = lambda name, result: None,
) -> WarmedUp:
    """Call each method once, and record the errors of those that fail.

    Args:
        calls: calls by the method's name. torch's random state is the same before each.
        keep: function that gets the name and the result of each call that succeeds.
    """
    running: dict[str, Call] = {}
    errors: dict[str, str] = {}
    for name, call in calls.items():
        gc.collect()  # frees graphs that some libraries leave in reference cycles
        torch.manual_seed(0)
        try:
            result = call()
        except Exception as error:  # the record says what a library raises
            errors[name] = one_line(error)
        else:
            running[name] = call
            keep(name, result)
            del result  # it may hold a graph
    return WarmedUp(running, errors)


def one_line(error: Exception) -> str:
    """Return an error's type and first line, cut to the width of a table."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def timed(
    calls: Mapping[str, Call], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Return the seconds of each method in each round.

    A round calls all methods, one after the other.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            gc.collect()
            synchronize(device)
            started = time.perf_counter()
            call()
            synchronize(device)
            seconds[name].append(time.perf_counter() - started)
    return seconds


def peak_of(call: Call, device: torch.device, calls: int = 2) -> int:
    """Return the peak memory of several calls, minus the memory in use before them.

    The default is two calls, because optimizers allocate their states in the first.
    """
    with PeakMemory(device) as peak:
        for _ in range(calls):
            call()
    return peak.bytes


class _Operations(TorchDispatchMode):
    """Counts the floating-point operations of its body, by PyTorch's formulas.

    ``FlopCounterMode`` gives the same count. Its ``ModuleTracker`` also puts hooks on
    the inputs and outputs of all modules. The hooks refer to autograd nodes, which own
    the hooks. Such a graph is freed only when the counter is closed. On a ResNet-10
    with transformation layers at 84 pixels, 25 + 5 images, a double backward left 84
    MiB of its 419 MiB in this way, and nothing without the tracker.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Make the call and add its operations, if there is a formula for it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula: Any = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=result)
        return result


def operations_of(call: Call) -> int:
    """Return the number of floating-point operations of a call."""
    with _Operations() as counter:
        call()
    return counter.total


def give_back_memory(device: torch.device) -> None:
    """Give memory that is free in this process back to the system, or to the device.

    The allocator of a CPU keeps freed blocks for later calls. After six methods on a
    ResNet-10 at 112 pixels, 1,941 MiB stayed resident, and 867 MiB after this call.
    """
    gc.collect()
    give_back_free_memory()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def in_fresh_process(
    function: Callable[..., Iterable[Found]], *args: Any
) -> tuple[list[Found], str | None]:
    """Iterate over what a function of a module returns, in a process of its own.

    Returns:
        The items, and None; or the items that came before an error, or before the
        process ended early because the machine ran out of memory, and the reason.
    """
    # Each call forks a server that has imported all modules and computed nothing. The
    # fork is fast, and the memory of the libraries does not count towards the peak.
    context = get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_items, args=(sender, function, args))
    process.start()
    sender.close()
    items: list[Found] = []
    reason = None
    with receiver:
        while True:
            try:
                item, reason = receiver.recv()
            except EOFError:
                break
            if reason is None:
                items.append(item)
    process.join()
    if process.exitcode != 0:
        reason = f"the process that measured it ended early, code {process.exitcode}"
    return items, reason


def _send_items(
    sender: Connection, function: Callable[..., Iterable[Any]], args: Sequence[Any]
) -> None:
    """Send each item with None, and an error without an item."""
    with sender:
        try:
            for item in function(*args):
                sender.send((item, None))
        except Exception as error:  # the record says what a library raises
            sender.send((None, one_line(error)))


def environment(device: torch.device, threads: int) -> dict[str, Any]:
    """Return versions, system, device and threads, which figures may depend on."""
    return {
        **versions(),
        **_peers(),
        "system": platform.system(),
        "device": _device_name(device),
        "threads": threads,
    }


def _peers() -> dict[str, str]:
    """Return the versions of the other libraries that are installed."""
    installed = {found.name for found in importlib.metadata.distributions()}
    known = [name for name in _PEERS if name in installed]
    return {name: importlib.metadata.version(name) for name in known}


def write_records(
    path: Path, config: Any, device: torch.device, records: Sequence[Any]
) -> None:
    """Write records as JSON with their configuration and environment.

    Args:
        path: path of the file; its folder is made if it does not exist.
        config: a dataclass with an attribute ``threads``.
        device: device of the measurement.
        records: dataclasses, one for each problem and method.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "config": asdict(config),
        "environment": environment(device, config.threads),
        "records": [asdict(record) for record in records],
    }
    write_json(path, content)


def wide_console(width: int) -> Console:
    """Return a console of at least this width, so that no figure is cut off."""
    console = Console()
    return console if console.width >= width else Console(width=width)


def synchronize(device: torch.device) -> None:
    """Wait until an accelerator has finished, so that its work is timed."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize(device)


def _device_name(device: torch.device) -> str:
    if device.type != "cpu":
        return str(torch.get_device_module(device).get_device_name(device))
    information = Path("/proc/cpuinfo")
    # On most Linux systems platform.processor() returns an empty text.
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
