"""Does every kind of fault many times, and writes a table of what came of it.

    uv run python tests/faults/everything.py --times 30
    uv run python tests/faults/everything.py --times 300 --family images

The table goes to docs/develop/faults.md, and its figures to faults.json. Families that
were not chosen keep their figures. Each fault that was not stood is printed with its
seed, with which it can be done again; the exit code is then 1.
"""

import argparse
import collections
import importlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests" / "faults")]

import torch  # noqa: E402
from faulty import OUTCOMES, tried  # noqa: E402
from rich.progress import track  # noqa: E402

FAMILIES = {
    "signals": "Signals at random moments",
    "state": "State of a run that is resumed",
    "disk": "Disks and folders",
    "command_lines": "Command lines",
    "settings_files": "Settings files",
    "run_reports": "Runs that report reads",
    "file_lists": "File lists",
    "images": "Images",
    "archives": "Archives",
    "library_calls": "Calls of the library",
}
NOT_STOOD = "not stood"


def counted(
    family: str, part: str, times: int, first: int
) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield each kind with ``part`` in its name, and how often it came to what."""
    kinds = importlib.import_module(family).KINDS
    kinds = {kind: do for kind, do in kinds.items() if part in kind}
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:

        def empty() -> Path:
            for old in Path(folder).iterdir():
                shutil.rmtree(old, ignore_errors=True)
            return Path(tempfile.mkdtemp(dir=folder))

        for kind, do in track(kinds.items(), family):
            own: collections.Counter[str] = collections.Counter()
            for _, seed, outcome in tried({kind: do}, times, first, empty):
                stood = isinstance(outcome, str)
                own[outcome if stood else NOT_STOOD] += 1
                if not stood:
                    print(f"{family}, {kind!r}, seed {seed}: {outcome}", flush=True)
            yield kind, dict(own)


def table(figures: dict[str, dict[str, dict[str, int]]]) -> str:
    """Return the figures as Markdown."""
    columns = (*OUTCOMES, NOT_STOOD)
    lines = [
        "# Faults tried, and what came of them",
        "",
        "Made by `uv run python tests/faults/everything.py`. The columns are explained",
        "in [reliability.md](../understanding/reliability.md).",
    ]
    for family, title in FAMILIES.items():
        if family not in figures:
            continue
        lines += ["", f"## {title}", ""]
        lines.append(f"| fault | times | {' | '.join(columns)} |")
        lines.append("|---|" + "---:|" * (1 + len(columns)))
        for kind, own in figures[family].items():
            cells = [str(own.get(name, "")) for name in columns]
            lines.append(f"| {kind} | {sum(own.values())} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=30, help="seeds for each kind")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--kind", default="", help="only kinds with this in their name")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "develop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.out / "faults.json"
    figures = json.loads(path.read_text()) if path.exists() else {}
    failed = False
    for family in options.family or FAMILIES:
        began = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        for kind, own in counted(family, options.kind, options.times, options.first):
            figures.setdefault(family, {})[kind] = own
            failed |= NOT_STOOD in own
            # After each kind, because all of them take hours.
            path.write_text(json.dumps(figures, indent=2) + "\n")
            (options.out / "faults.md").write_text(table(figures))
        print(f"{family}: {time.monotonic() - began:.0f} s", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
