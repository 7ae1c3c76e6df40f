"""Evaluates configurations: by the record if it knows them, else by training."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from l2l_evograd.search.evaluation import Evaluation
from l2l_evograd.search.record import Record
from l2l_evograd.search.workers import Running, Workers


class Job(NamedTuple):
    """Something to evaluate.

    Attributes:
        part: part of the search.
        number: counts the jobs of the part.
        config: the configuration.
        fidelity: number of steps to train it for.
        seed: seed of the training.
        origin: whatever the job comes from.
    """

    part: str
    number: int
    config: dict[str, Any]
    fidelity: int
    seed: int
    origin: Any = None


@dataclass
class _Started:
    job: Job
    running: Running | None = None  # None: the record knows the evaluation
    evaluation: Evaluation | None = None


class Evaluator:
    """Evaluates jobs, and writes them to the record as soon as they end.

    Args:
        workers: compute the training runs.
        record: knows the evaluations from before the search was resumed.
        at_once: number of jobs that are evaluated at once.
    """

    def __init__(self, workers: Workers, record: Record, at_once: int) -> None:
        self._workers = workers
        self._record = record
        self._at_once = at_once

    def in_order(self, jobs: Iterator[Job]) -> Iterator[tuple[Job, Evaluation]]:
        """Yield each job with its evaluation, in the order of the jobs.

        Job n + ``at_once`` is taken from ``jobs`` when the evaluation of job n has been
        yielded and used, whichever ended first. What the jobs are thus never depends on
        how long they take.
        """
        waiting: deque[_Started] = deque()
        while True:
            while len(waiting) < self._at_once:
                job = next(jobs, None)
                if job is None:
                    break
                waiting.append(self._start(job))
            if not waiting:
                return
            evaluation = self._finish(waiting[0], waiting)
            yield waiting.popleft().job, evaluation

    def _start(self, job: Job) -> _Started:
        started = _Started(job)
        started.evaluation = self._record.find(
            job.part, job.number, job.config, job.fidelity
        )
        if started.evaluation is None:
            started.running = self._workers.start(job.config, job.fidelity, job.seed)
            self._take([started])
        return started

    def _finish(self, first: _Started, all_of_them: Sequence[_Started]) -> Evaluation:
        while first.evaluation is None:
            unknown = [one for one in all_of_them if one.evaluation is None]
            self._workers.wait([one.running for one in unknown if one.running])
            self._take(unknown)
        return first.evaluation

    def _take(self, unknown: Sequence[_Started]) -> None:
        """Write the evaluations that have ended, then raise the error of one."""
        failed: list[Running] = []
        for one in unknown:
            if one.running is None or one.running.status == "pending":
                continue
            if one.running.status != "finished":
                failed.append(one.running)
                continue
            loss, seconds = one.running.result()
            job = one.job
            one.evaluation = Evaluation(
                job.config, job.fidelity, job.seed, loss, seconds
            )
            self._record.add(job.part, job.number, one.evaluation)
        for running in failed:
            running.result()
