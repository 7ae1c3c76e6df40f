"""Processor time and peak memory of the hypergradient of a whole training run.

    python -m benchmarks.whole_runs --json FILE --picture FILE
    python -m benchmarks.whole_runs --quick

The methods are the functions of ``l2l_evograd.unroll``, and the library ``higher``. The
number of steps T varies, or the number N of values that are learned. Every record is
made in a process of its own, and has the distance of its hypergradient to that of plain
autograd in double precision.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import in_fresh_process, one_line, write_records
from benchmarks.whole_runs_cells import exact_here, work_here
from benchmarks.whole_runs_problems import LENET, METHODS, MLP, RATES, WEIGHTS, Work
from benchmarks.whole_runs_records import RunRecord, line_of, record_of
from l2l_evograd.checks import InputError

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        windows: number N of learning rates where T varies.
        steps: T of the runs of each network.
        fixed_steps: T where N varies, on the perceptron.
        counts: N.
        longest: seconds of a call from which on it is not repeated.
        rounds: number of timed calls otherwise, after the first.
        threads: number of PyTorch's threads.
        fresh: whether each record is made in a process of its own.
    """

    windows: int = 8
    steps: tuple[tuple[str, tuple[int, ...]], ...] = (
        (MLP, (50, 100, 200, 500, 1000, 2000)),
        (LENET, (50, 100, 200)),
    )
    fixed_steps: int = 50
    counts: tuple[int, ...] = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)
    longest: float = 3.0
    rounds: int = 2
    threads: int = 1
    fresh: bool = True

    def works(self) -> list[Work]:
        """Return all runs, the short ones of each sweep first."""
        found = [
            Work(network, count, RATES, self.windows)
            for network, counts in self.steps
            for count in counts
        ]
        return found + [
            Work(MLP, self.fixed_steps, WEIGHTS, count) for count in self.counts
        ]


FULL = Config()
QUICK = Config(
    windows=2,
    steps=((MLP, (2, 4)), (LENET, (2,))),
    fixed_steps=2,
    counts=(1, 5, 2000),
    rounds=1,
    fresh=False,
)


def measure(
    config: Config, after: Callable[[list[RunRecord]], None] = lambda records: None
) -> list[RunRecord]:
    """Return a record for each run and method.

    Args:
        config: what is measured.
        after: function that is called after each record with all records so far.
    """
    records: list[RunRecord] = []
    for work in config.works():
        exact, error = _made(config, exact_here, work, config.threads)
        if error is not None:
            raise RuntimeError(
                f"expected plain autograd, which others are compared with, to "
                f"differentiate {work}, but: {error}"
            )
        for method in METHODS:
            records.append(_measure_one(config, work, method, exact[0]))
            after(records)
    return records


def _measure_one(
    config: Config, work: Work, method: str, exact: list[float]
) -> RunRecord:
    arguments = (work, method, exact, config.threads, config.rounds, config.longest)
    found, error = _made(config, work_here, *arguments)
    peak, difference, *seconds = found if len(found) > 2 else (None, None)
    return record_of(work, method, seconds, peak, difference, os.getloadavg()[0], error)


def _made(
    config: Config, function: Callable[..., Iterator[Any]], *arguments: Any
) -> tuple[list[Any], str | None]:
    """Return what a function yields, and the reason if it ended early."""
    if config.fresh:
        return in_fresh_process(function, *arguments)
    found: list[Any] = []
    try:
        found.extend(function(*arguments))
    except InputError as error:  # a method refuses the work
        return found, one_line(error)
    return found, None


def main(arguments: list[str] | None = None) -> None:
    """Measure, print lines, write the records and the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.whole_runs",
        description="Cost of the hypergradient of a whole training run.",
    )
    parser.add_argument("--quick", action="store_true", help="only try that it runs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args(arguments)
    config = QUICK if options.quick else FULL
    records = measure(config, partial(_print_and_write, config, options.json))
    if options.picture is not None:
        # Not above, because each process imports this module again.
        from benchmarks.whole_runs_pictures import draw_whole_runs

        options.picture.parent.mkdir(parents=True, exist_ok=True)
        draw_whole_runs(records, options.picture)


def _print_and_write(
    config: Config, path: Path | None, records: list[RunRecord]
) -> None:
    """Print the latest record, and write all records so far."""
    print(line_of(records[-1]), flush=True)
    if path is not None:
        write_records(path, config, _CPU, records)


if __name__ == "__main__":
    main()
