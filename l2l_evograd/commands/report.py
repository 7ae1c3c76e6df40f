"""``l2l-evograd report`` and its options."""

from pathlib import Path
from typing import Annotated

import typer

from l2l_evograd.commands.application import app, interrupt_as_line


@app.command()
def report(
    out: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of crossdomain runs, finished or not, or of such folders."
        ),
    ],
    to: Annotated[
        Path,
        typer.Option(help="Folder for report.md and domains.png; older ones go."),
    ] = Path("report"),
) -> None:
    """Gather runs of crossdomain into one Markdown report with a picture.

    Accuracy by method and unseen domain, for each kind of network and episode, beside
    the published figures where there are any; seconds and memory; links to the runs.
    Runs whose settings differ otherwise are kept apart, and the differences named.
    """
    with interrupt_as_line():
        from l2l_evograd.fewshot.report_command import report as gather_report

        gather_report(out, to=to)
