"""The data of training iterations, prepared in advance by worker processes."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch
import torch.multiprocessing  # lets processes exchange tensors through shared memory

from l2l_evograd.checks import InputError, check_count

# Number of items that each worker makes in advance.
_PREFETCH = 2

_ADVICE = (
    "use fewer workers, or none (workers 0), or give the machine more memory; workers "
    "also need shared memory (/dev/shm; for a container, set --shm-size)"
)

# Errors of a worker that lacks memory or files, or whose item cannot be sent.
_MAYBE_THE_WORKER = (
    *(OSError, RuntimeError, pickle.PicklingError, TypeError, AttributeError),
)


class WorkerError(InputError):
    """Workers fail on this machine although this process does not."""


class Ahead:
    """The data of training iterations in order, one item for each iteration.

    The items are the same with any number of workers. Workers start with the first item
    and end with :meth:`close`, or when this process dies. They ignore Ctrl-C, which
    this process handles.

    Args:
        make: function that maps an iteration to new tensors on the CPU, in tuples,
            lists or dicts. It is called without gradients and on one thread. It must
            depend only on the iteration and must not change the random states. On
            Linux it may be any function, because workers are forked; elsewhere it must
            be picklable. Each worker has its own copy, with its own decoded images.
        stop: total number of iterations.
        workers: number of processes that make items, each up to two in advance; 0:
            each item is made in this process when it is needed.

    Raises:
        InputError: for a negative number of workers.

    Cost: up to 2 · workers items in shared memory, where each tensor takes a file
    descriptor; about 1 ms for each item and 0.1 s for each worker.
    """

    def __init__(self, make: Callable[[int], Any], stop: int, workers: int = 0) -> None:
        self._make = make
        self._stop = stop
        self._workers = check_count(workers, "workers", 0)
        self._pool: ProcessPoolExecutor | None = None
        self._pending: deque[tuple[int, Future[Any]]] = deque()

    def take(self, iteration: int) -> Any:
        """Return the item of an iteration.

        If this is not the iteration after the previous one, the workers start again
        from it.

        Raises:
            WorkerError: if a worker died, could not be started, or failed at an item
                that this process can make. Other errors of ``make`` are raised
                unchanged.
        """
        if self._workers == 0:
            return _made(self._make, iteration)
        if not self._pending or self._pending[0][0] != iteration:
            self._start_at(iteration)
        number, item = self._pending.popleft()
        following = number + 1 + len(self._pending)
        try:
            if following < self._stop:
                self._submit(following)
            return item.result()
        except BrokenProcessPool as error:
            self.close()
            raise WorkerError(
                f"a worker process died before it made iteration {iteration}, for "
                f"example because memory ran out; {_ADVICE}"
            ) from error
        except _MAYBE_THE_WORKER as error:
            # If this process fails as well, its own error is more informative.
            _made(self._make, iteration)
            raise WorkerError(
                f"a worker process could not make iteration {iteration}, although this "
                f"process can ({type(error).__name__}: {error}); {_ADVICE}"
            ) from error

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        self._pending.clear()

    def _start_at(self, iteration: int) -> None:
        self.close()
        forked = sys.platform == "linux"
        self._pool = ProcessPoolExecutor(
            self._workers,
            multiprocessing.get_context("fork" if forked else None),
            _begin,
            (self._make,),
        )
        last = min(iteration + _PREFETCH * self._workers, self._stop)
        try:
            for number in range(iteration, last):
                self._submit(number)
        except OSError as error:
            self.close()
            raise WorkerError(
                f"{self._workers} workers could not be started ({error}); {_ADVICE}"
            ) from error

    def _submit(self, number: int) -> None:
        if self._pool is not None:
            self._pending.append((number, self._pool.submit(_work, number)))


def _made(make: Callable[[int], Any], number: int) -> Any:
    """Return an item, made on one thread and without gradients.

    One thread is used because sums depend on the number of threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            return make(number)
    finally:
        torch.set_num_threads(threads)


# The function that makes the items, in a worker process.
_make_here: Callable[[int], Any] | None = None


def _begin(make: Callable[[int], Any]) -> None:
    """Prepare a worker."""
    global _make_here
    _make_here = make
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when the process that started it has died."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(number: int) -> Any:
    if _make_here is None:
        raise RuntimeError("expected a worker that was prepared by _begin")
    return _made(_make_here, number)
