"""Peak memory of a block of code, on an accelerator or in the process.

On an accelerator the caching allocator counts every tensor exactly. On a CPU tensors
are not counted, so the process's resident set is measured instead. Linux stores its
highest value (VmHWM) and lets a process reset it. On other systems only the highest
value since the process started is known; a block that stays below it has a peak of 0.
"""

import ctypes
import gc
import importlib
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")

# A measurement starts by resetting a counter of the process. A measurement inside
# another would therefore falsify the outer one.
_occupied: set[str] = set()
_lock = threading.Lock()


class PeakMemory:
    """The most memory that the body of a ``with`` needed at any one time.

    ``bytes`` = (highest use inside the body) − (use at entry), at least 0::

        with PeakMemory(torch.device("cpu")) as peak:
            loss.backward()
        print(peak.bytes)

    Memory that was freed before the body, or is freed and allocated again inside it, is
    not counted twice. On a CPU, resident pages are measured: memory that was reserved
    and never written to is not included, allocations of other threads are included, and
    the result is accurate to a few hundred kilobytes.

    Args:
        device: the device of the tensors. For an accelerator whose ``torch`` module
            counts peaks (CUDA, ROCm, XPU), its counter is read; otherwise the process
            is measured.

    Raises:
        TypeError: if ``device`` is not a ``torch.device``.
        RuntimeError: at entry, if a measurement of the same counter is running or the
            system has no counter; when ``bytes`` is read before the body has ended.

    Cost: one garbage collection at entry; on an accelerator, one synchronisation at
    entry and one at exit. On Linux the kernel walks the page table once.
    """

    def __init__(self, device: torch.device) -> None:
        if not isinstance(device, torch.device):
            raise TypeError(
                f"expected a torch.device, got {type(device).__name__}; "
                f"write PeakMemory(torch.device('cpu'))"
            )
        self.device = device
        self._counter = _counter_for(device)
        self._start = 0
        self._bytes: int | None = None

    @property
    def bytes(self) -> int:
        """The peak above the use at entry, in bytes."""
        if self._bytes is None:
            raise RuntimeError("the peak is known only after the 'with' block ended")
        return self._bytes

    def __enter__(self) -> "PeakMemory":
        key = self._counter.key
        with _lock:
            if key in _occupied:
                raise RuntimeError(
                    f"a PeakMemory on {key!r} is already running, and starting another "
                    f"would reset its counter; measure one after the other"
                )
            _occupied.add(key)
        try:
            gc.collect()
            self._bytes = None
            self._start = self._counter.begin()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._bytes = max(0, self._counter.peak() - self._start)
        finally:
            self._leave()

    def _leave(self) -> None:
        with _lock:
            _occupied.discard(self._counter.key)


class _Accelerator:
    """The caching allocator's own count."""

    def __init__(self, device: torch.device, module: Any) -> None:
        index = module.current_device() if device.index is None else device.index
        self.key = f"{device.type}:{index}"
        self._module = module
        self._index = index

    def begin(self) -> int:
        self._module.synchronize(self._index)
        self._module.reset_peak_memory_stats(self._index)
        return int(self._module.memory_allocated(self._index))

    def peak(self) -> int:
        self._module.synchronize(self._index)
        return int(self._module.max_memory_allocated(self._index))


class _Process:
    """The resident set: VmHWM where it can be reset, else the process's maximum."""

    key = "process"

    def __init__(self) -> None:
        self.resettable = False

    def begin(self) -> int:
        give_back_free_memory()
        try:
            # "5" sets VmHWM back to the present VmRSS. Some containers forbid it.
            _CLEAR_REFS.write_text("5")
            start = _status("VmRSS")
        except (OSError, KeyError):
            self.resettable = False
            return _highest_so_far()
        self.resettable = True
        return start

    def peak(self) -> int:
        return _status("VmHWM") if self.resettable else _highest_so_far()


def _counter_for(device: torch.device) -> _Accelerator | _Process:
    if device.type != "cpu":
        module = torch.get_device_module(device)
        if hasattr(module, "reset_peak_memory_stats"):
            return _Accelerator(device, module)
    return _Process()


def _highest_so_far() -> int:
    try:
        # mypy does not resolve this name, because Windows has no such module.
        resource: Any = importlib.import_module("resource")
    except ImportError as error:
        raise RuntimeError(
            f"{sys.platform} has no counter of a process's peak memory that "
            f"Python's standard library reads; measure on an accelerator"
        ) from error
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def _status(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise KeyError(field)


def give_back_free_memory() -> None:
    """Release the C library's free pages; reusing them would not be measured."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc only; other C libraries keep few
        trim(0)
