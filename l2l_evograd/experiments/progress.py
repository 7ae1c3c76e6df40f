"""Progress bars. They are shown only on terminals and disappear at the end."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)


def progress_bar(console: Console, *columns: ProgressColumn) -> Progress:
    """Return a bar with a description and the remaining time.

    Args:
        console: console to draw on.
        columns: columns between the bar and the remaining time; empty: the number of
            finished steps, and the text of the field ``figures``.
    """
    columns = columns or (MofNCompleteColumn(), TextColumn("{task.fields[figures]}"))
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
