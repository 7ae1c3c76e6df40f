"""What one process measures of a whole run, or computes to compare with.

The functions are in a module of their own, because a server of processes can import
that beforehand, and cannot import the script that was started.
"""

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring import peak_of
from benchmarks.whole_runs_problems import METHODS, UNROLLED, Work, make_run

_CPU = torch.device("cpu")


def exact_here(work: Work, threads: int) -> Iterator[list[float]]:
    """Yield the hypergradient by plain autograd in double precision."""
    torch.set_num_threads(threads)
    yield METHODS[UNROLLED](make_run(work, torch.float64)).tolist()


def work_here(
    work: Work,
    method: str,
    exact: list[float],
    threads: int,
    rounds: int,
    longest: float,
) -> Iterator[Any]:
    """Yield the peak memory of the first call, its distance, and what calls took.

    Each of the latter is a pair: seconds of processor time, and seconds that passed.
    There is one pair, of the first call, if it took longer than ``longest``; else there
    is one for each of ``rounds`` further calls.

    Args:
        work: the run.
        method: name of the method.
        exact: the hypergradient to compare with.
        threads: number of PyTorch's threads.
        rounds: number of further calls.
        longest: seconds of a call from which on it is not repeated.
    """
    torch.set_num_threads(threads)
    METHODS[method](make_run(Work(work.network, 2, work.learned, 1)))  # lazy imports
    run = make_run(work)
    found: list[Tensor] = []
    clock = _Clock()
    peak = peak_of(lambda: found.append(METHODS[method](run)), _CPU, calls=1)
    first = clock.read()
    yield peak
    truth = torch.tensor(exact, dtype=torch.float64)
    yield float((found[0] - truth).norm() / truth.norm())
    if first[0] > longest:
        yield first
        return
    for _ in range(rounds):
        clock = _Clock()
        METHODS[method](run)
        yield clock.read()


class _Clock:
    """Processor time, which other work on a machine disturbs little, and time."""

    def __init__(self) -> None:
        self._processor = time.process_time()
        self._passed = time.perf_counter()

    def read(self) -> tuple[float, float]:
        """Return both times since the start, in seconds."""
        processor = time.process_time() - self._processor
        return processor, time.perf_counter() - self._passed
