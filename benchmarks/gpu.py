"""A session on a GPU in which every minute counts.

    python -m benchmarks.gpu --out DIR --minutes 8
    python -m benchmarks.gpu --out DIR --minutes 1 --device cpu --config smoke

Rows are measured in order of worth. Each is written to ``DIR/results.json`` as soon as
it is measured. A second call with the same folder measures the rows that are missing.
No row is started for which too little time is left. A row that cannot be measured holds
the reason. Convolutions in float32 use TF32, as PyTorch does by default.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_rows import CONFIGS, Row, rows_of
from benchmarks.measuring import (
    environment,
    give_back_memory,
    imports_frozen,
    one_line,
)
from l2l_evograd.checks import InputError
from l2l_evograd.experiments.files import read_object, write_json
from l2l_evograd.experiments.paths import folder_to_write

RESULTS = "results.json"
_OUT_OF_MEMORY = "out of memory"

Record = dict[str, Any]
Records = dict[tuple[str, ...], Record]


def key_of(record: Record) -> tuple[str, ...]:
    """Return what tells a record from all others, the ``key`` of its row."""
    return tuple(record[name] for name in Row._fields[:4])


def read_records(path: Path, session: Record) -> Records:
    """Return the records of earlier calls of the same session.

    Raises:
        InputError: if the file belongs to another configuration or device.
    """
    if not path.exists():
        return {}
    content = read_object(path)
    for name in ("config", "device"):
        if content.get(name) != session[name]:
            raise InputError(
                f"{path} was measured with {name} {content.get(name)!r}, not "
                f"{session[name]!r}; choose another folder with --out"
            )
    return {key_of(record): record for record in content["rows"]}


def measured(row: Row, device: torch.device, records: Records) -> Record:
    """Measure a row, and return its record."""
    record: Record = dict(zip(Row._fields[:4], row.key, strict=True))
    smaller = None if row.after is None else records.get(row.after.key)
    if row.cuda_only and device.type != "cuda":
        return {**record, "skipped": "needs CUDA"}
    if smaller is not None and smaller.get("error") == _OUT_OF_MEMORY:
        return {**record, "skipped": "a smaller size ran out of memory"}
    if smaller is not None and "skipped" in smaller:
        return {**record, "skipped": smaller["skipped"]}
    begin = time.perf_counter()
    torch.manual_seed(0)
    try:
        record.update(row.measure())
    except torch.cuda.OutOfMemoryError:
        record["error"] = _OUT_OF_MEMORY
    except Exception as error:  # the record says what a library or a capture raises
        record["error"] = one_line(error)
    record["took"] = time.perf_counter() - begin
    return record


def line_of(record: Record) -> str:
    """Return a record as one line."""
    names = Row._fields[:4]
    parts = [f"{n} {_text(v)}" for n, v in record.items() if n not in names]
    return f"{' | '.join(key_of(record))}: {', '.join(parts)}"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def run(options: argparse.Namespace) -> None:
    """Measure the rows that are missing, until the minutes are used up.

    Raises:
        InputError: if the folder belongs to another session, or there is no CUDA.
    """
    deadline = time.monotonic() + 60 * options.minutes
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("expected a GPU for --device cuda, but CUDA is not available")
    device = torch.device(options.device)
    folder_to_write(options.out)
    path = options.out / RESULTS
    about = environment(device, torch.get_num_threads())
    session = {
        "config": options.config,
        "device": about["device"],
        "environment": about,
    }
    records = read_records(path, session)
    options.out.mkdir(parents=True, exist_ok=True)
    left = 0
    with imports_frozen():
        for row in rows_of(CONFIGS[options.config], device, options.data):
            if row.key in records:
                continue
            if time.monotonic() + (row.cost or 0.0) > deadline:
                left += 1
                continue
            records[row.key] = record = measured(row, device, records)
            write_json(path, {**session, "rows": list(records.values())})
            print(line_of(record), flush=True)
            give_back_memory(device)
            if device.type == "cuda":
                torch.cuda.synchronize()  # raises here if the device cannot go on
    print(f"{len(records)} rows in {path}, {left} left for another call")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the session; exit with code 2 and one line if it cannot start."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description="A session on a GPU in which every minute counts.",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--config", choices=sorted(CONFIGS), default="full")
    parser.add_argument("--data", help="folder of CIFAR-10 for the noisy labels")
    try:
        run(parser.parse_args(arguments))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
