"""How time and memory are measured: interleaved rounds, and a process for each peak.

Rounds are interleaved so that a machine which slows down slows all methods down. A
method that does not run is a record with an error, not a gap.
"""

import gc
import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
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

from l2l_evograd.oracle.peak_memory import PeakMemory
from l2l_evograd.runs.folder import versions, write_json

_PEERS = ("higher", "torchopt", "betty-ml", "torchvision")
_WIDTH = 100
_HEADINGS = ("seconds", "fastest", "slowest", "x plain", "passes", "peak MiB")
_LONGEST = 160

Call = Callable[[], Any]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Record:
    """What one method costs on one problem.

    Attributes:
        problem: its name.
        method: its name.
        seconds: median of the rounds; None if the method does not run.
        fastest: of the rounds.
        slowest: of the rounds.
        times_plain: ``seconds`` over those of the plain step.
        peak_bytes: the most memory in use at once, less what was in use before the
            method's first call; None if it was not found.
        error: why there are no figures, in one line.
        passes: what it computes, in forward passes: three times its multiplications
            in convolutions and matrix products by those of the plain step, which is
            one forward and one backward pass. No machine slows it down. None if they
            were not counted.
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
    """The outcome of first calls.

    Attributes:
        running: the calls that went well.
        errors: of the others.
    """

    running: dict[str, Call]
    errors: dict[str, str]


def warmed_up(calls: Mapping[str, Call]) -> WarmedUp:
    """Make the first call of each method, in which it may fail."""
    running: dict[str, Call] = {}
    errors: dict[str, str] = {}
    for name, call in calls.items():
        gc.collect()  # graphs in reference cycles, which some libraries leave behind
        try:
            call()
        except Exception as error:  # whatever a peer raises is a finding about it
            errors[name] = one_line(error)
        else:
            running[name] = call
    return WarmedUp(running, errors)


def one_line(error: Exception) -> str:
    """Return the first line of an error with its type, cut to a table's width."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def timed(
    calls: Mapping[str, Call], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Return the seconds of each call in each round, one method after the other."""
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
    """Return the most bytes that calls take beyond what is in use before them.

    Two calls, for optimizers make their states in the first.
    """
    with PeakMemory(device) as peak:
        for _ in range(calls):
            call()
    return peak.bytes


def operations_of(call: Call) -> int:
    """Return the floating-point operations of a call.

    The counter may keep graphs of higher order alive, so this is for a process that
    measures nothing afterwards.
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
        What it returned and None; or None and why: the process may end early, as when
        it asks for more memory than there is.
    """
    # A server that has imported everything and computed nothing is forked each time,
    # which takes no time and keeps libraries out of the peak.
    context = get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(function, *args).result(), None
        except BrokenProcessPool:
            return None, "the process that its memory was measured in ended early"


def record_of(
    problem: str,
    method: str,
    seconds: Sequence[float],
    plain: Sequence[float],
    peak_bytes: int | None,
    error: str | None,
    passes: float | None,
) -> Record:
    """Summarise the rounds of a method that runs.

    Args:
        problem: its name.
        method: its name.
        seconds: of the rounds.
        plain: of the rounds of the plain step.
        peak_bytes: as found, or None.
        error: why there is no peak, or None.
        passes: as in :class:`Record`.
    """
    return Record(
        problem,
        method,
        median(seconds),
        min(seconds),
        max(seconds),
        median(seconds) / median(plain),
        peak_bytes,
        error,
        passes,
    )


def environment(device: torch.device, threads: int) -> dict[str, Any]:
    """Return what the figures may depend on."""
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
        path: of the file, in a folder that may have to be made.
        config: a dataclass with ``threads``.
        device: that was measured on.
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
    """Return the terminal's console, at least as wide: figures would be cut short."""
    console = Console()
    return console if console.width >= width else Console(width=width)


def print_records(records: Sequence[Record]) -> None:
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
                outcome = "does not run" if record.seconds is None else "no peak"
                console.print(
                    f"{record.method} {outcome}: {record.error}", markup=False
                )


def _cells(record: Record) -> list[str]:
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
    """Wait for an accelerator, so that what it does is timed."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize(device)


def _device_name(device: torch.device) -> str:
    if device.type != "cpu":
        return str(torch.get_device_module(device).get_device_name(device))
    information = Path("/proc/cpuinfo")
    if information.exists():  # platform.processor() is empty on most Linux systems
        for line in information.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
