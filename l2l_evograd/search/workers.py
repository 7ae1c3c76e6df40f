"""Where training runs are computed: in this process, or on dask's workers."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from typing import Any, NamedTuple, Protocol

from l2l_evograd.checks import InputError
from l2l_evograd.interrupts import deferred

Train = Callable[[dict[str, Any], int, int], float]


class Outcome(NamedTuple):
    """The loss of a training run and the seconds that it took."""

    loss: float
    seconds: float


class Running(Protocol):
    """A training run that was started."""

    @property
    def status(self) -> str:
        """Return "pending", "finished", or the kind of failure."""

    def result(self) -> Outcome:
        """Return the outcome, or raise what the training run raised."""


class Workers(Protocol):
    """Something that computes training runs."""

    def start(self, config: dict[str, Any], fidelity: int, seed: int) -> Running:
        """Start a training run."""

    def wait(self, running: Sequence[Running]) -> None:
        """Wait until at least one of several has ended."""


class _Finished(NamedTuple):
    outcome: Outcome
    status: str = "finished"

    def result(self) -> Outcome:
        return self.outcome


class _ThisProcess:
    """Computes a training run when it is started."""

    def __init__(self, train: Train) -> None:
        self._train = train

    def start(self, config: dict[str, Any], fidelity: int, seed: int) -> Running:
        return _Finished(trained(self._train, config, fidelity, seed))

    def wait(self, running: Sequence[Running]) -> None:
        del running


class WorkerDiedError(InputError):
    """The processes that computed a training run died again and again."""


class _OnWorker(NamedTuple):
    """A training run on a worker; dask starts it again where the worker dies."""

    future: Any

    @property
    def status(self) -> str:
        return str(self.future.status)

    def result(self) -> Outcome:
        import distributed

        try:
            outcome: Outcome = self.future.result()
        except distributed.KilledWorker as error:
            raise WorkerDiedError(
                "the process of a training run died, and so did those that repeated "
                "it, for example because memory ran out; use fewer workers or smaller "
                "trainings; a search with a folder can be resumed"
            ) from error
        return outcome


class _Dask:
    """Computes on the workers of a ``distributed.Client``."""

    def __init__(self, train: Train, client: Any) -> None:
        self._train = train
        self._client = client
        self._started: list[Any] = []

    def start(self, config: dict[str, Any], fidelity: int, seed: int) -> _OnWorker:
        # Not pure: dask would answer from its memory when it is asked the same again.
        future = self._client.submit(
            trained, self._train, config, fidelity, seed, pure=False
        )
        self._started.append(future)
        return _OnWorker(future)

    def wait(self, running: Sequence[Any]) -> None:
        import distributed

        futures = [one.future for one in running]
        with self._client.as_current():
            distributed.wait(futures, return_when="FIRST_COMPLETED")
        self._started = [one for one in self._started if one.status == "pending"]

    def cancel(self) -> None:
        """Take back what has not begun."""
        if self._client.status == "running":
            self._client.cancel(self._started)


def trained(train: Train, config: dict[str, Any], fidelity: int, seed: int) -> Outcome:
    """Return the outcome of a training run.

    Raises:
        TypeError: if ``train`` does not return a number.
    """
    begin = time.perf_counter()
    # A copy: what train does to its argument stays its own matter.
    loss = train(dict(config), fidelity, seed)
    seconds = time.perf_counter() - begin
    try:
        return Outcome(float(loss), seconds)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"expected train to return the loss as a number, got {loss!r}"
        ) from error


def number_of_workers(workers: int, client: Any) -> int:
    """Return how many training runs are computed at once.

    Args:
        workers: that number; 1 with a client: the threads of all its workers.
        client: the client; None: there is none.

    Raises:
        InputError: if it is no client, or has no workers.
    """
    if client is None or workers > 1:
        return workers
    if not hasattr(client, "nthreads") or not hasattr(client, "submit"):
        raise InputError(
            f"expected client to be a distributed.Client, got "
            f"{type(client).__name__}; for processes of this machine give workers"
        )
    threads = sum(client.nthreads().values())
    if threads == 0:
        raise InputError(
            "expected client to have workers, got none; wait for them with "
            "client.wait_for_workers(1)"
        )
    return threads


@contextlib.contextmanager
def workers_for(train: Train, workers: int, client: Any) -> Iterator[Workers]:
    """Make workers for the body; processes that were started for it end with it.

    Args:
        train: the training run.
        workers: number of processes to start, if there is no client; 1: none.
        client: a client of the caller's, which stays open.
    """
    if client is None and workers == 1:
        yield _ThisProcess(train)
        return
    with contextlib.ExitStack() as stack:
        if client is None:
            client = stack.enter_context(_local_client(workers))
        on_dask = _Dask(train, client)
        stack.callback(on_dask.cancel)
        yield on_dask


@contextlib.contextmanager
def _local_client(workers: int) -> Iterator[Any]:
    import distributed

    with contextlib.ExitStack() as stack:
        # A terminal sends Ctrl-C to the workers as well, and each would print a
        # traceback. Interrupted while it starts, a cluster would leave workers behind.
        with deferred():
            _begin_quiet_tracker()
            cluster = stack.enter_context(
                distributed.LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    # dask's own limit kills what needs more than its share
                    memory_limit=None,
                    dashboard_address="127.0.0.1:0",  # the usual one may be taken
                    silence_logs=logging.CRITICAL,  # what matters is raised
                )
            )
            client = stack.enter_context(
                distributed.Client(cluster, set_as_default=False)
            )
        yield client


def _begin_quiet_tracker() -> None:
    """Start the process with which Python removes semaphores that are left behind.

    It removes them silently, where this process is killed.
    """
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"
    try:
        resource_tracker.ensure_running()
    finally:
        del os.environ["PYTHONWARNINGS"]
        if before is not None:
            os.environ["PYTHONWARNINGS"] = before
