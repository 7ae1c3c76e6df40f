"""``l2l-evograd crossdomain`` from its options to its report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from l2l_evograd.fewshot.preparation import prepare
from l2l_evograd.fewshot.report import draw_accuracy, draw_episodes, results_table
from l2l_evograd.fewshot.results import EPISODES, PICTURES
from l2l_evograd.fewshot.settings import CrossDomainSettings
from l2l_evograd.runs.command import interruptible, say, settings_to_run
from l2l_evograd.runs.folder import ACCURACY, RESULTS


def crossdomain(
    options: Mapping[str, Any],
    *,
    given: Mapping[str, Any],
    out: Path,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> list[dict[str, Any]]:
    """Run the experiment and report on it.

    Args:
        options: a value for each of :class:`CrossDomainSettings`.
        given: those of them that were asked for; a run that goes on must agree.
        out: folder of the run.
        resume: go on with the run in ``out``, with its settings.
        overwrite: replace the run in ``out``.
        console: where to say what happens; None: the standard output.

    Returns:
        The summary: one row for each method.

    Raises:
        ValueError, TypeError, FileNotFoundError, PermissionError: for bad input,
            before anything is trained or written.
        KeyboardInterrupt: when interrupted, saying how to go on.
    """
    console = console or Console()
    out = out.expanduser()
    settings = settings_to_run(
        CrossDomainSettings,
        options,
        given,
        out=out,
        pictures=PICTURES,
        resume=resume,
        overwrite=overwrite,
    )
    with interruptible(out, settings.command):
        experiment = prepare(settings, out, console)
        results = experiment.run(resume)
        rows = results.summary()
        settings = experiment.settings
        title = (
            f"{settings.ways}-way {settings.shots}-shot on {settings.unseen!r}, "
            f"{settings.head}, {settings.backbone}"
        )
        draw_accuracy(rows, title, settings.ways, out / ACCURACY)
        draw_episodes(
            experiment.domains,
            settings.unseen,
            (settings.ways, settings.shots),
            settings.seed,
            out / EPISODES,
        )
    console.print(results_table(rows, settings.unseen))
    say(console, f"{out / RESULTS}, {', '.join(PICTURES)}")
    return rows
