"""A report of runs that were written without training, and what can be read off it."""

from pathlib import Path
from typing import Any

from consoles import silent_console

from l2l_evograd.experiments.crossdomain.report.command import report

ONE = {(0, "none"): [0.5, 0.7, 0.6], (0, "lft-evograd"): [0.6, 0.9, 0.7]}


def text_of(folders: list[Path], to: Path) -> str:
    report(folders, to=to, console=silent_console())
    return (to / "report.md").read_text(encoding="utf-8")


def table(text: str, number: int = 0) -> list[list[str]]:
    """The cells of a table of a report, the header first."""
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    lines = blocks[number].splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert len({len(row) for row in cells}) == 1
    return [cells[0], *cells[2:]]


def shown(row: dict[str, Any]) -> str:
    text = f"{100 * row['accuracy']:.2f} ± {100 * row['interval']:.2f}"
    return text if row["seeds"] == 1 else f"{text} (sd {100 * row['seed_sd']:.2f})"
