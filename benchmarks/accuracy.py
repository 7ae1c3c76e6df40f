"""What learning λ brings on each problem, at equal iterations and at equal time.

    python -m benchmarks.accuracy --json FILE --picture FILE
    python -m benchmarks.accuracy --problem "sample weights" --json FILE
    python -m benchmarks.accuracy --config smoke

A first run gives every method of a problem the same number of iterations. A second run
gives every method the training time that the exact method took in the first run: the
number of iterations follows from the median seconds of an iteration in the first run.
Schedules of learning rates are stretched with the iterations. The time of tests is not
counted. Differences are paired by seed.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.accuracy_pictures import draw_qualities
from benchmarks.accuracy_problems import EXACT, PROBLEMS, Problem
from benchmarks.accuracy_records import (
    ITERATIONS,
    TIME,
    Record,
    line_of,
    markdown,
    records_of,
    table,
)
from benchmarks.measuring import environment, wide_console
from l2l_evograd.experiments.files import write_json

# Number of seeds of each configuration.
CONFIGS = {"default": 5, "smoke": 2}

_WIDTH = 120
_THREADS = 1


def measure(problem: Problem, seeds: Sequence[int], console: Console) -> list[Record]:
    """Return one record for each budget and method of a problem."""
    records: list[Record] = []
    with tempfile.TemporaryDirectory() as folder:
        for budget, found in _budgets(problem, seeds, Path(folder)):
            for record in found:
                console.print(line_of(record), highlight=False, soft_wrap=True)
            records += found
            console.print(f"{problem.name}: {budget} done", highlight=False)
    return records


def _budgets(
    problem: Problem, seeds: Sequence[int], folder: Path
) -> Iterator[tuple[str, list[Record]]]:
    equal = {method: problem.iterations for method in problem.methods.values()}
    trainings = problem.train(equal, seeds, folder / "equal")
    records = records_of(problem, ITERATIONS, equal, trainings)
    yield ITERATIONS, records
    seconds = {record["method"]: record["seconds_per_iteration"] for record in records}
    slowest = seconds[problem.methods[EXACT]]
    timed = {
        method: max(1, round(problem.iterations * slowest / seconds[method]))
        for method in equal
    }
    # What makes as many iterations as before gives what it gave.
    again = {m: count for m, count in timed.items() if count != problem.iterations}
    later = {**trainings, **problem.train(again, seeds, folder / "timed")}
    yield TIME, records_of(problem, TIME, timed, later)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, write the records and the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description="What learning λ brings, at equal iterations and at equal time.",
    )
    parser.add_argument("--config", choices=sorted(CONFIGS), default="default")
    parser.add_argument(
        "--problem",
        choices=sorted(PROBLEMS),
        help="measure only this one; --json keeps its records of the others",
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    chosen = parser.parse_args(arguments)
    console = wide_console(_WIDTH)
    torch.set_num_threads(_THREADS)
    seeds = range(CONFIGS[chosen.config])
    names = list(PROBLEMS) if chosen.problem is None else [chosen.problem]
    records = _kept(chosen.json, set(names))
    for name in names:
        problem = PROBLEMS[name](chosen.config == "smoke")
        records += measure(problem, seeds, console)
        # The file is written after each problem: all together take an hour.
        if chosen.json is not None:
            content = {
                "config": {"name": chosen.config, "seeds": len(seeds)},
                "environment": environment(torch.device("cpu"), _THREADS),
                "records": records,
            }
            chosen.json.parent.mkdir(parents=True, exist_ok=True)
            write_json(chosen.json, content)
    console.print(table(records))
    for budget in (ITERATIONS, TIME):
        for line in markdown(records, budget):
            console.print(line, highlight=False, soft_wrap=True, markup=False)
    if chosen.picture is not None:
        chosen.picture.parent.mkdir(parents=True, exist_ok=True)
        draw_qualities(records, chosen.picture)


def _kept(path: Path | None, measured: set[str]) -> list[Any]:
    """Return the records of a file, without those of problems measured anew."""
    if path is None or not path.exists():
        return []
    records = json.loads(path.read_text(encoding="utf-8"))["records"]
    return [record for record in records if record["problem"] not in measured]


if __name__ == "__main__":
    main()
