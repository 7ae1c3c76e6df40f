"""Measurement of time and memory.

Each round calls every method once, so that a machine that slows down slows down all
methods alike. Each peak of memory is measured in a process of its own. A method that
fails gets a record that holds its error.
"""

import gc
import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeVar

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from l2l_evograd.experiments.folder import versions, write_json
from l2l_evograd.oracle.peak_memory import PeakMemory

_PEERS = ("higher", "torchopt", "betty-ml", "torchvision")
_WIDTH = 100
_HEADINGS = ("seconds", "fastest", "slowest", "x plain", "passes", "peak MiB")
_LONGEST = 160

Call = Callable[[], Any]
Found = TypeVar("Found")


@dataclass(frozen=True)
class CostRecord:
    """What one method costs on one problem.

    Attributes:
        problem: name of the problem.
        method: name of the method.
        seconds: seconds of a call, median of the rounds; None if the method fails.
        fastest: seconds of the fastest round.
        slowest: seconds of the slowest round.
        times_plain: ``seconds`` divided by the seconds of the plain step.
        peak_bytes: the most memory in use at once, minus the memory in use before the
            method's first call; None if the measurement failed.
        error: reason for missing figures, in one line.
        passes: arithmetic of a call as a number of forward passes: three times the
            method's multiplications in convolutions and matrix products, divided by
            those of the plain step (one forward and one backward pass). It does not
            depend on the speed of the machine. None if it was not counted.
    """

    problem: str
    method: str
    seconds: float | None = None
    fastest: float | None = None
    slowest: float | None = None
    times_plain: float | None = None
    peak_bytes: int | None = None
    error: str | None = None
    passes: float | None = None


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


def warmed_up(calls: Mapping[str, Call]) -> WarmedUp:
    """Call each method once, and record the errors of those that fail."""
    running: dict[str, Call] = {}
    errors: dict[str, str] = {}
    for name, call in calls.items():
        gc.collect()  # frees graphs that some libraries leave in reference cycles
        try:
            call()
        except Exception as error:  # the record says what a library raises
            errors[name] = one_line(error)
        else:
            running[name] = call
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


def operations_of(call: Call) -> int:
    """Return the number of floating-point operations of a call.

    The counter may keep graphs of second derivatives alive. Measure memory before this
    call or in another process.
    """
    counter = FlopCounterMode(display=False)
    with counter:
        call()
    return counter.get_total_flops()


def in_fresh_process(
    function: Callable[..., Found], *args: Any
) -> tuple[Found | None, str | None]:
    """Call a function of a module in a process of its own.

    Returns:
        The function's result and None; or None and the reason, if the process ended
        early, for example because the machine ran out of memory.
    """
    # Each call forks a server that has imported all modules and computed nothing. The
    # fork is fast, and the memory of the libraries does not count towards the peak.
    context = get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(function, *args).result(), None
        except BrokenProcessPool:
            return None, "the process that measured its memory ended early"


def record_of(
    problem: str,
    method: str,
    seconds: Sequence[float],
    plain_step_seconds: Sequence[float],
    peak_bytes: int | None,
    error: str | None,
    passes: float | None,
) -> CostRecord:
    """Return the record of a method that runs.

    Args:
        problem: name of the problem.
        method: name of the method.
        seconds: seconds of each round.
        plain_step_seconds: seconds of each round of the plain step.
        peak_bytes: as in :class:`CostRecord`.
        error: reason for a missing peak, or None.
        passes: as in :class:`CostRecord`.
    """
    return CostRecord(
        problem,
        method,
        median(seconds),
        min(seconds),
        max(seconds),
        median(seconds) / median(plain_step_seconds),
        peak_bytes,
        error,
        passes,
    )


def environment(device: torch.device, threads: int) -> dict[str, Any]:
    """Return versions, system, device and threads, which figures may depend on."""
    return {
        **versions(),
        **{name: importlib.metadata.version(name) for name in _PEERS},
        "system": platform.system(),
        "device": _device_name(device),
        "threads": threads,
    }


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


def print_records(records: Sequence[CostRecord]) -> None:
    """Print a table for each problem."""
    console = wide_console(_WIDTH)
    for problem in dict.fromkeys(record.problem for record in records):
        table = Table(title=problem, box=box.SIMPLE_HEAD)
        table.add_column("method", no_wrap=True)
        for heading in _HEADINGS:
            table.add_column(heading, justify="right", no_wrap=True)
        group = [record for record in records if record.problem == problem]
        for record in group:
            table.add_row(record.method, *_cells(record))
        console.print(table)
        for record in group:
            if record.error is not None:
                outcome = "fails" if record.seconds is None else "has no peak"
                console.print(
                    f"{record.method} {outcome}: {record.error}", markup=False
                )


def _cells(record: CostRecord) -> list[str]:
    if record.seconds is None:
        return ["-"] * len(_HEADINGS)
    seconds = (record.seconds, record.fastest, record.slowest)
    peak = "-" if record.peak_bytes is None else f"{record.peak_bytes / 2**20:.0f}"
    return [
        *(f"{figure:.3f}" for figure in seconds if figure is not None),
        f"{record.times_plain:.2f}",
        "-" if record.passes is None else f"{record.passes:.1f}",
        peak,
    ]


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
