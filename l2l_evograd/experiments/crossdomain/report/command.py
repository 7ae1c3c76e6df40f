"""``l2l-evograd report``."""

from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.crossdomain.report.aggregate import (
    compare,
    gather,
)
from l2l_evograd.experiments.crossdomain.report.markdown import report_text, titles_of
from l2l_evograd.experiments.experiment import say
from l2l_evograd.experiments.files import disk_errors, write_text
from l2l_evograd.experiments.options import GivenPaths, NotAnOption, OutFolder
from l2l_evograd.experiments.output import printing
from l2l_evograd.experiments.paths import folder_to_write
from l2l_evograd.lock import locked

REPORT = "report.md"
DOMAINS = "domains.png"


@printing("report", lambda given: given["to"])
def report(
    folders: GivenPaths,
    /,
    *,
    to: OutFolder = Path("report"),
    console: Annotated[Console | None, NotAnOption] = None,
) -> list[dict[str, Any]]:
    """Combine runs of crossdomain in one Markdown report with a picture.

    The report has a table of accuracies by method and unseen domain for each network
    and type of episode. It also has published accuracies, if there are any, seconds and
    memory, and links to the runs. Runs with different settings are in separate tables,
    and the report names the differences.

    Args:
        folders: Folders of crossdomain runs, finished or not, or folders that contain
            them.
        to: Folder for report.md and domains.png; existing ones are replaced.
        console: console to print on; None: the standard output.

    Returns:
        The figures of the report: one row for each table, unseen domain and method.

    Raises:
        InputError: for folders that do not contain such runs, or if ``to`` cannot be
            written to. Nothing is written in this case.
    """
    from l2l_evograd.experiments.crossdomain.report.domains_picture import draw_domains

    to = folder_to_write(to, "--to")
    runs = gather(folders)
    if not runs:
        raise InputError("expected the folder of at least one run, got none")
    comparisons = compare(runs)
    text = report_text(comparisons, to, DOMAINS)
    with locked(to, "--to"), disk_errors(to, "choose another folder with --to"):
        draw_domains(comparisons, titles_of(comparisons), to / DOMAINS)
        write_text(to / REPORT, text)
    unfinished = sum(bool(run.missing) for run in runs)
    say(
        console or Console(),
        f"{to / REPORT}, {DOMAINS}: {len(runs)} run{'s' if len(runs) > 1 else ''}"
        + (f", {unfinished} not finished" if unfinished else ""),
    )
    return [
        {"comparison": title, "unseen": unseen, **row}
        for title, comparison in zip(titles_of(comparisons), comparisons, strict=True)
        for unseen, rows in comparison.rows.items()
        for row in rows.values()
    ]
