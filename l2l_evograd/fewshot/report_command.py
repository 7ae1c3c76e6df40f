"""``l2l-evograd report`` from the folders of runs to its files."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from l2l_evograd.fewshot.gathered_picture import draw_domains
from l2l_evograd.fewshot.gathered_report import report_text, titles_of
from l2l_evograd.fewshot.gathering import Comparison, compare, gather
from l2l_evograd.runs.command import say
from l2l_evograd.runs.folder import write_whole

REPORT = "report.md"
DOMAINS = "domains.png"


def report(
    folders: Sequence[Path], *, to: Path, console: Console | None = None
) -> list[Comparison]:
    """Gather runs of ``crossdomain`` into one report with its picture.

    An older report in the same folder is replaced.

    Args:
        folders: of the runs, finished or not, or of such folders.
        to: where to write ``report.md`` and ``domains.png``; made if need be.
        console: where to say what was written; None: the standard output.

    Returns:
        What is compared in the report.

    Raises:
        ValueError, FileNotFoundError: for folders that hold no such run, before
            anything is written.
        PermissionError: if ``to`` cannot be written.
    """
    to = to.expanduser()
    runs = gather(folders)
    if not runs:
        raise ValueError("expected the folder of at least one run, got none")
    comparisons = compare(runs)
    text = report_text(comparisons, to, DOMAINS)
    if to.exists() and not to.is_dir():
        raise ValueError(f"expected --to to be a folder, but {to} is a file")
    try:
        to.mkdir(parents=True, exist_ok=True)
        draw_domains(comparisons, titles_of(comparisons), to / DOMAINS)
        write_whole(to / REPORT, lambda place: _write(place, text))
    except OSError as error:
        raise PermissionError(
            f"cannot write to {to} ({error.strerror}); choose another folder with --to"
        ) from error
    unfinished = sum(bool(run.missing) for run in runs)
    say(
        console or Console(),
        f"{to / REPORT}, {DOMAINS}: {len(runs)} run{'s' if len(runs) > 1 else ''}"
        + (f", {unfinished} of them not finished" if unfinished else ""),
    )
    return comparisons


def _write(place: Path, text: str) -> None:
    place.write_text(text, encoding="utf-8")
