"""``l2l-evograd crossdomain`` from its options to its report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from l2l_evograd.fewshot.experiment import Experiment
from l2l_evograd.fewshot.features_picture import draw_planes
from l2l_evograd.fewshot.preparation import prepare
from l2l_evograd.fewshot.presets import with_preset
from l2l_evograd.fewshot.projection import plane_of
from l2l_evograd.fewshot.published import published
from l2l_evograd.fewshot.report import draw_accuracy, draw_episodes, results_table
from l2l_evograd.fewshot.results import (
    EPISODES,
    FEATURES,
    PICTURES,
    STRENGTHS,
    Results,
)
from l2l_evograd.fewshot.settings import CrossDomainSettings
from l2l_evograd.fewshot.strengths_picture import draw_strengths
from l2l_evograd.runs.command import interruptible, say, settings_to_run
from l2l_evograd.runs.folder import ACCURACY, RESULTS, SETTINGS
from l2l_evograd.runs.processes import console_of, join, leads


def crossdomain(
    options: Mapping[str, Any],
    *,
    given: Mapping[str, Any],
    out: Path,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> list[dict[str, Any]]:
    """Run the experiment and report on it, once for each unseen domain.

    Args:
        options: a value for each of :class:`CrossDomainSettings`, several domains under
            ``unseen`` separated by commas, and ``preset``.
        given: those of them that were asked for; a run that goes on must agree.
        out: folder of the run; of several, the folder of their folders.
        resume: go on with the run in ``out``, with its settings.
        overwrite: replace the run in ``out``.
        console: where to say what happens; None: the standard output.

    Returns:
        The summaries: one row for each unseen domain and method.

    Raises:
        ValueError, TypeError, FileNotFoundError, PermissionError: for bad input,
            before anything is trained or written.
        KeyboardInterrupt: when interrupted, saying how to go on.
    """
    out = out.expanduser()
    options, given = with_preset(options, given, resume=resume)
    names = _names(options["unseen"])
    if len(names) == 1:
        return _one(
            *_for(names[0], options, given),
            out=out,
            resume=resume,
            overwrite=overwrite,
            console=console,
        )
    rows: list[dict[str, Any]] = []
    # Before hours of training on the first one, the others are checked as well.
    for name in names:
        own, resumes = _for(name, options, given), _resumes(resume, out / name)
        settings = _checked(*own, out / name, resumes, overwrite)
        prepare(settings, out / name, Console(quiet=True))
    for number, name in enumerate(names):
        rows += _one(
            *_for(name, options, given),
            out=out / name,
            resume=_resumes(resume, out / name),
            overwrite=overwrite,
            console=console,
            lenders=[out / earlier for earlier in names[:number]],
        )
    return rows


def _names(unseen: str | Sequence[str]) -> list[str]:
    if not isinstance(unseen, str):
        return list(unseen)
    names = [name.strip() for name in unseen.split(",")]
    return [name for name in names if name] or [unseen]


def _for(
    unseen: str, options: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return options and those asked for, with one unseen domain among them."""
    own = {**given, "unseen": unseen} if "unseen" in given else dict(given)
    return {**options, "unseen": unseen}, own


def _resumes(resume: bool, out: Path) -> bool:
    return resume and (out / SETTINGS).exists()


def _checked(
    options: Mapping[str, Any],
    given: Mapping[str, Any],
    out: Path,
    resume: bool,
    overwrite: bool,
) -> CrossDomainSettings:
    return settings_to_run(
        CrossDomainSettings,
        options,
        given,
        out=out,
        pictures=PICTURES,
        resume=resume,
        overwrite=overwrite,
    )


def _one(
    options: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    out: Path,
    resume: bool,
    overwrite: bool,
    console: Console | None,
    lenders: Sequence[Path] = (),
) -> list[dict[str, Any]]:
    """Make one run, and return its summary."""
    settings = _checked(options, given, out, resume, overwrite)
    console = console_of(settings.processes, console)
    with interruptible(out, settings.command):
        experiment = prepare(settings, out, console)
        join(settings.processes, experiment.settings.device)
        results = experiment.run(resume, lenders)
        if leads(settings.processes):
            _draw(experiment, results)
    rows, settings = results.summary(), experiment.settings
    known = published(
        settings.head,
        settings.backbone,
        settings.ways,
        settings.shots,
        settings.unseen,
    )
    console.print(results_table(rows, settings.unseen, known))
    drawn = [name for name in PICTURES if (out / name).exists()]
    say(console, f"{out / RESULTS}, {', '.join(drawn)}")
    return [{"unseen": settings.unseen, **row} for row in rows]


def _draw(experiment: Experiment, results: Results) -> None:
    settings, out = experiment.settings, experiment.out
    title = (
        f"{settings.ways}-way {settings.shots}-shot on {settings.unseen!r}, "
        f"{settings.head}, {settings.backbone}"
    )
    draw_accuracy(results.summary(), title, settings.ways, out / ACCURACY)
    draw_episodes(
        experiment.domains,
        settings.unseen,
        (settings.ways, settings.shots),
        settings.seed,
        out / EPISODES,
    )
    draw_strengths(results.runs, out / STRENGTHS)
    planes = {
        run["method"]: plane_of(run["features"])
        for run in results.runs
        if run["seed"] == settings.seed and run["features"]
    }
    if planes:
        draw_planes(planes, settings.unseen, out / FEATURES)
