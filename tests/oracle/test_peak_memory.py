"""Peak memory: what counts, what does not, and what is refused."""

import importlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from l2l_evograd.oracle import peak_memory
from l2l_evograd.oracle.peak_memory import PeakMemory

MEGABYTE = 1_000_000
CPU = torch.device("cpu")


def tensor_of(megabytes: int) -> torch.Tensor:
    return torch.ones(megabytes * MEGABYTE, dtype=torch.uint8)


def test_an_allocation_shows_in_full() -> None:
    with PeakMemory(CPU) as peak:
        kept = tensor_of(200)
    assert 190 * MEGABYTE <= peak.bytes <= 260 * MEGABYTE
    assert kept.numel() == 200 * MEGABYTE


def test_a_temporary_that_is_gone_at_the_end_counts() -> None:
    with PeakMemory(CPU) as peak:
        del_me = tensor_of(100)
        del del_me
    assert 90 * MEGABYTE <= peak.bytes <= 140 * MEGABYTE


def test_memory_freed_and_taken_again_counts_once() -> None:
    # The system may take freed pages back late when it is busy, which only adds: the
    # least of three measurements counts.
    peaks = []
    for _ in range(3):
        with PeakMemory(CPU) as peak:
            for _ in range(4):
                tensor = tensor_of(100)
                del tensor
        peaks.append(peak.bytes)
    assert 90 * MEGABYTE <= min(peaks) <= 140 * MEGABYTE


def test_many_small_tensors_freed_before_do_not_hide_those_inside() -> None:
    # Below malloc's threshold for a mapping of its own, so they come from the heap.
    before = [torch.ones(50_000, dtype=torch.uint8) for _ in range(1000)]
    del before
    with PeakMemory(CPU) as peak:
        kept = [torch.ones(50_000, dtype=torch.uint8) for _ in range(1000)]
    assert 40 * MEGABYTE <= peak.bytes <= 80 * MEGABYTE
    assert len(kept) == 1000


def test_what_was_allocated_before_does_not_count() -> None:
    before = tensor_of(200)
    with PeakMemory(CPU) as peak:
        inside = before[:10].clone()
    assert peak.bytes <= 20 * MEGABYTE
    assert inside.numel() == 10


def test_a_second_measurement_starts_anew() -> None:
    meter = PeakMemory(CPU)
    with meter:
        tensor_of(100)
    with meter:
        tensor_of(1)
    assert meter.bytes <= 30 * MEGABYTE


def test_a_measurement_inside_another_is_refused_and_the_outer_one_stands() -> None:
    with PeakMemory(CPU) as outer:
        gone = tensor_of(100)
        del gone
        with pytest.raises(RuntimeError, match="already running"):
            with PeakMemory(CPU):
                pass
    assert 90 * MEGABYTE <= outer.bytes <= 140 * MEGABYTE


def test_an_exception_ends_the_measurement_and_comes_through() -> None:
    peak = PeakMemory(CPU)
    with pytest.raises(KeyError, match="mine"):
        with peak:
            raise KeyError("mine")
    assert peak.bytes >= 0
    with PeakMemory(CPU):
        pass


def test_the_peak_is_refused_before_the_end() -> None:
    with PeakMemory(CPU) as peak:
        with pytest.raises(RuntimeError, match="only after the 'with' block ended"):
            _ = peak.bytes


def test_a_device_name_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a torch.device, got str"):
        PeakMemory("cpu")  # type: ignore[arg-type]


def test_without_a_counter_to_reset_the_process_peak_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forbidden(*args: Any, **kwargs: Any) -> int:
        raise PermissionError("read-only")

    monkeypatch.setattr(
        peak_memory, "_CLEAR_REFS", SimpleNamespace(write_text=forbidden)
    )
    with PeakMemory(CPU) as peak:
        tensor_of(10)
    assert isinstance(peak._counter, peak_memory._Process)
    assert not peak._counter.resettable
    # The highest set so far may lie above all that happened inside.
    assert 0 <= peak.bytes <= 60 * MEGABYTE


def test_a_status_without_the_field_means_no_counter_to_reset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    empty = SimpleNamespace(read_text=lambda: "Name:\tpython\n")
    monkeypatch.setattr(peak_memory, "_STATUS", empty)
    with PeakMemory(CPU) as peak:
        pass
    assert isinstance(peak._counter, peak_memory._Process)
    assert not peak._counter.resettable
    with pytest.raises(KeyError, match="VmHWM"):
        peak_memory._status("VmHWM")


def test_a_system_without_any_counter_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(peak_memory, "_STATUS", SimpleNamespace(read_text=lambda: ""))
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(RuntimeError, match="no counter of a process's peak memory"):
        with PeakMemory(CPU):
            pass
    monkeypatch.undo()
    with PeakMemory(CPU):  # the failed entry left nothing behind
        pass


def test_an_accelerator_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = SimpleNamespace(
        current_device=lambda: 3,
        synchronize=lambda index: None,
        reset_peak_memory_stats=lambda index: None,
        memory_allocated=lambda index: 1000 + index,
        max_memory_allocated=lambda index: 1500 + index,
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: figures)
    with PeakMemory(torch.device("cuda")) as peak:
        with PeakMemory(CPU) as other:  # another counter, so no clash
            pass
    assert peak.bytes == 500
    assert other.bytes >= 0
    with pytest.raises(RuntimeError, match="'cuda:3' is already running"):
        with PeakMemory(torch.device("cuda")):
            with PeakMemory(torch.device("cuda", 3)):
                pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_counts_every_tensor() -> None:
    device = torch.device("cuda")
    with PeakMemory(device) as peak:
        tensor = torch.ones(200 * MEGABYTE, dtype=torch.uint8, device=device)
    assert 200 * MEGABYTE <= peak.bytes <= 204 * MEGABYTE
    assert tensor.numel() == 200 * MEGABYTE
