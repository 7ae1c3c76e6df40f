"""How many threads each of several processes takes.

Threads of torch that wait for each other keep their cores busy. Two processes with as
many threads as there are cores are therefore much slower than one after the other.
"""

import contextlib
import os
import sys
from collections.abc import Iterator

import torch

from l2l_evograd import interrupts

# With one of them the user has chosen the number of threads.
_CHOSEN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_of_each(processes: int) -> int:
    """Return the number of torch's threads of each of several processes.

    It is torch's own number for one process, and where the user has chosen it.
    Otherwise the processes share the cores.

    Args:
        processes: number of processes that compute on this machine at the same time.
    """
    now = torch.get_num_threads()
    if processes == 1 or _chosen():
        return now
    return min(now, max(1, cores() // processes))


@contextlib.contextmanager
def shared_cores(processes: int) -> Iterator[None]:
    """Let the body use as many threads as :func:`threads_of_each` says."""
    before = torch.get_num_threads()
    use_threads(threads_of_each(processes))
    try:
        yield
    finally:
        use_threads(before)


def use_threads(count: int) -> None:
    """Let torch use so many threads.

    The same number is not set again, because that also changes how MKL chooses.
    """
    if count != torch.get_num_threads():
        torch.set_num_threads(count)


def tell_if_busy() -> None:
    """Print a line on the standard error stream if others use all cores already."""
    if _chosen() or torch.get_num_threads() == 1 or interrupts.follows():
        return
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > cores() and sys.stderr is not None:
        print(
            f"note: this machine is busy (load {load:.1f}, {cores()} cores); runs side "
            f"by side are faster with OMP_NUM_THREADS=1 in the environment",
            file=sys.stderr,
        )


def _chosen() -> bool:
    return any(name in os.environ for name in _CHOSEN)
