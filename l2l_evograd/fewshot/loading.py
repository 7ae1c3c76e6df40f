"""What the iterations of a training see, made ahead by processes of their own."""

import contextlib
import io
import pickle
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from multiprocessing.connection import wait
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C import _remove_worker_pids
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from l2l_evograd.runs.settings import check_whole

# What each worker makes ahead.
_PREFETCH = 2

# Seconds until the death of a worker shows that has just broken a connection.
_GRACE = 1.0

_ADVICE = (
    "use fewer workers, or none (workers 0), or give the machine more memory, of which "
    "workers need shared memory too (/dev/shm, in a container its --shm-size)"
)


class WorkerError(ValueError):
    """The workers asked for cannot do here what this process could."""


def iteration_loader(
    make: Callable[[int], Any],
    start: int,
    stop: int,
    workers: int = 0,
    *,
    pin_memory: bool = False,
) -> "IterationLoader":
    """Return what iterations ``start`` to ``stop`` - 1 see, to be iterated over.

    Gives pairs of an iteration's number and what ``make`` returns for it, in order,
    and the same whatever the number of workers. Worker processes start when the
    iteration does, and are gone when it ends, fails or is closed. They leave Ctrl-C to
    this process. A worker that dies is noticed when an item of it is waited for,
    within five seconds.

    Args:
        make: iteration -> new tensors on the CPU, in tuples, named or not, lists or
            dicts. It is called with gradients off and on one thread, and is to draw
            from (seed, iteration) alone and leave the random states as they were. On
            Linux it may be any function: workers are forked. Elsewhere they are not,
            and it must be picklable. Each worker has a copy, and what that remembers,
            such as decoded images, goes with the worker: one loader over all
            iterations decodes less than one for each epoch.
        start: the first iteration.
        stop: the one after the last.
        workers: processes that make items ahead, each up to two; 0: none, items are
            made here when they are asked for.
        pin_memory: whether items come in page-locked memory, for copies to a GPU.

    Raises:
        ValueError, TypeError: for numbers that are none or below 0. While iterating,
            what ``make`` raises, as without workers.
        WorkerError: while iterating, if workers die, cannot be started, or fail where
            this process does not.

    Cost: up to 2 · workers items in shared memory, of which each tensor takes a file
    descriptor; an item takes about 1 ms to hand over. A worker takes about 0.1 s to
    start and end, and the first item is waited for.
    """
    return IterationLoader(make, start, stop, workers, pin_memory)


class IterationLoader:
    """Numbered items; see :func:`iteration_loader`, which makes one."""

    def __init__(
        self,
        make: Callable[[int], Any],
        start: int,
        stop: int,
        workers: int,
        pin_memory: bool,
    ) -> None:
        check_whole("workers", workers, 0)
        check_whole("start", start, 0)
        check_whole("stop", stop, 0)
        self._items = _Items(make)
        self._numbers = range(start, stop)
        self._workers = workers
        self._pin_memory = pin_memory

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._numbers)

    def __iter__(self) -> Generator[tuple[int, Any], None, None]:
        """Give the items; close what is returned to stop before the end."""
        iterator: Iterator[Any] | None = None
        try:
            with _signals_held_back():
                iterator = self._started()
            for number in self._numbers:
                yield number, self._next(iterator, number)
        finally:
            if isinstance(iterator, _MultiProcessingDataLoaderIter):
                # Waiting for its deletion would be waiting for all who hold on to the
                # traceback of an error.
                iterator._shutdown_workers()

    def _started(self) -> Iterator[Any]:
        forked = self._workers > 0 and sys.platform == "linux"
        loader = DataLoader(
            self._items,
            batch_size=None,
            sampler=self._numbers,
            num_workers=self._workers,
            collate_fn=_unchanged,
            pin_memory=self._pin_memory,
            prefetch_factor=_PREFETCH if self._workers else None,
            multiprocessing_context="fork" if forked else None,
            # Else torch's global one would be drawn from.
            generator=torch.Generator(),
        )
        try:
            iterator = iter(loader)
        except OSError as error:
            raise WorkerError(
                f"{self._workers} workers could not be started ({error}); {_ADVICE}"
            ) from error
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            # Else torch would raise the news of a dead worker wherever this process
            # happens to be, in the midst of a step. The iterator finds out by itself.
            _remove_worker_pids(id(iterator))
            iterator._worker_pids_set = False
        return iterator

    def _next(self, iterator: Iterator[Any], number: int) -> Any:
        try:
            item = next(iterator)
        except Exception:  # torch has several for a dead worker; all else goes on up
            ends = _ends(iterator)
            if not ends:
                raise
            raise WorkerError(
                f"a worker process {' and another '.join(ends)} before iteration "
                f"{number} was made, as when memory runs out; {_ADVICE}"
            ) from None  # torch's own words say less
        if not isinstance(item, _Failure):
            return item.made
        # The same happens here, with its own type, text and traceback.
        self._items.made(number)
        raise WorkerError(
            f"iteration {number} could not be made by a worker process, though it "
            f"could without ({item.text}); {_ADVICE}"
        )


class Ahead:
    """What the iterations of a training see, one after the other, asked for by number.

    The workers of one loader go on from one block of iterations to the next, so that
    what they remember is of use.

    Args:
        make: as in :func:`iteration_loader`.
        stop: number of all iterations.
        workers: likewise.
        pin_memory: likewise.
    """

    def __init__(
        self,
        make: Callable[[int], Any],
        stop: int,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self._make, self._stop = make, stop
        self._workers, self._pin_memory = workers, pin_memory
        self._items: Generator[tuple[int, Any], None, None] | None = None
        self._next = -1

    def take(self, iteration: int) -> Any:
        """Return what an iteration sees; any but the one after the last starts anew."""
        if self._items is None or iteration != self._next:
            self.close()
            loader = iteration_loader(
                self._make,
                iteration,
                self._stop,
                self._workers,
                pin_memory=self._pin_memory,
            )
            self._items = iter(loader)
        number, item = next(self._items)
        self._next = number + 1
        return item

    def close(self) -> None:
        """End the workers."""
        if self._items is not None:
            self._items.close()
            self._items = None


class _Item(NamedTuple):
    """Wraps what was made, so that it is never mistaken for a failure."""

    made: Any


class _Failure(NamedTuple):
    """Stands in for an item that a worker could not make."""

    text: str


class _Items(Dataset[Any]):
    """The items by number, as a ``DataLoader`` asks for them."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self._make = make

    def __getitem__(self, number: int) -> _Item | _Failure:
        if get_worker_info() is None:
            return _Item(self.made(number))
        try:
            made = self.made(number)
            _send_ahead(made)
        except Exception as error:  # raised by the process that asked
            return _Failure(f"{type(error).__name__}: {error}")
        return _Item(made)

    def made(self, number: int) -> Any:
        """Return an item, made on one thread, as sums depend on their number."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.no_grad():
                return self._make(number)
        finally:
            torch.set_num_threads(threads)


def _unchanged(item: Any) -> Any:
    """Stand in for what would turn tuples into lists."""
    return item


def _send_ahead(made: Any) -> None:
    """Bring all tensors into shared memory, and try whether the rest can be sent.

    The thread that sends an item would do the first by itself. But what it cannot send
    it drops, and the item would be waited for until the end of time.
    """
    _Sharing(io.BytesIO()).dump(made)


class _Sharing(pickle.Pickler):
    """Puts tensors into shared memory where others are written down."""

    def persistent_id(self, obj: Any) -> str | None:
        if not isinstance(obj, Tensor):
            return None
        obj.share_memory_()
        return "tensor"


def _ends(iterator: Iterator[Any]) -> list[str]:
    """Return how workers have ended, an empty list if all are alive."""
    if not isinstance(iterator, _MultiProcessingDataLoaderIter):
        return []
    workers = iterator._workers
    wait([worker.sentinel for worker in workers], _GRACE)
    codes = [worker.exitcode for worker in workers]
    return [_end(code) for code in codes if code is not None]


def _end(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"was killed by signal {-code}"


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """Keep Ctrl-C, and news of workers, from this process while it starts some.

    Processes that it starts meanwhile are never reached by Ctrl-C, so that they say
    nothing about it; this process ends them.
    """
    if sys.platform == "win32":
        yield
        return
    held = {signal.SIGINT, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
