"""``l2l-evograd crossdomain`` from its options to its report."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from l2l_evograd.fewshot.preparation import prepare
from l2l_evograd.fewshot.report import draw_accuracy, draw_episodes, results_table
from l2l_evograd.fewshot.results import (
    ACCURACY,
    EPISODES,
    RESULTS,
    SETTINGS,
    check_out,
    read_settings,
)
from l2l_evograd.fewshot.settings import CrossDomainSettings


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
    if resume and overwrite:
        raise ValueError("expected --resume or --overwrite, got both")
    check_out(out, resume, overwrite)
    try:
        settings = _resumed(out, given) if resume else CrossDomainSettings(**options)
        experiment = prepare(settings, out, console, resume=resume, overwrite=overwrite)
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
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(_how_to_go_on(out)) from interrupt
    console.print(results_table(rows, settings.unseen))
    console.print(
        f"{out / RESULTS}, {ACCURACY}, {EPISODES}", highlight=False, soft_wrap=True
    )
    return rows


def _resumed(out: Path, given: Mapping[str, Any]) -> CrossDomainSettings:
    settings = read_settings(out)
    different = settings.different(given)
    if different:
        listed = "; ".join(
            f"--{name.replace('_', '-')} is {getattr(settings, name)!r} there, "
            f"{given[name]!r} here"
            for name in different
        )
        raise ValueError(
            f"a run goes on with its own settings, but {listed}; leave the option out "
            f"or start another run with another --out"
        )
    return settings


def _how_to_go_on(out: Path) -> str:
    if not (out / SETTINGS).exists():
        return "interrupted before anything was written"
    folder = shlex.quote(str(out))
    return f"interrupted; go on with: l2l-evograd crossdomain --resume --out {folder}"
