"""``l2l-evograd rotation`` from its options to its report."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from l2l_evograd.illustrations import ANGLES, PICTURES
from l2l_evograd.illustrations.digits import (
    ANGLE,
    DigitSplits,
    built_in_digits,
    read_digits,
)
from l2l_evograd.illustrations.rotation import train
from l2l_evograd.illustrations.rotation_report import (
    draw_accuracies,
    draw_angles,
    results_table,
)
from l2l_evograd.illustrations.rotation_results import RotationResults
from l2l_evograd.illustrations.settings import RotationSettings
from l2l_evograd.runs.command import (
    interruptible,
    progress_bar,
    say,
    settings_to_run,
)
from l2l_evograd.runs.folder import ACCURACY, RESULTS, make_folder


def rotation(
    options: Mapping[str, Any],
    *,
    given: Mapping[str, Any],
    out: Path,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> list[dict[str, Any]]:
    """Run the rotation problem and report on it.

    Writes settings, results and two pictures to ``out``; results after every method of
    every seed.

    Args:
        options: a value for each of :class:`RotationSettings`.
        given: those of them that were asked for; a run that goes on must agree in all
            but the number of seeds.
        out: folder of the run.
        resume: keep what the run in ``out`` has finished and do the rest.
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
        RotationSettings,
        options,
        {name: value for name, value in given.items() if name != "seeds"},
        out=out,
        pictures=PICTURES,
        resume=resume,
        overwrite=overwrite,
    )
    if resume:
        seeds = max(given.get("seeds", settings.seeds), settings.seeds)
        settings = dataclasses.replace(settings, seeds=seeds)
    with interruptible(out, settings.command):
        digits = _digits(settings.data)
        make_folder(out, settings.to_dict(), PICTURES, resume=resume)
        results = RotationResults(out, settings, {"data": _about(digits)})
        _announce(console, settings, digits)
        _run(settings, digits, results, console)
    rows = results.summary()
    draw_angles(results.runs, out / ANGLES)
    draw_accuracies(rows, out / ACCURACY)
    console.print(results_table(rows))
    say(console, f"{out / RESULTS}, {ANGLES}, {ACCURACY}")
    return rows


def _run(
    settings: RotationSettings,
    digits: DigitSplits,
    results: RotationResults,
    console: Console,
) -> None:
    """Add what is missing to the results."""
    for seed in settings.all_seeds:
        for method in settings.methods:
            if results.has(seed, method):
                continue
            with progress_bar(console) as progress:
                task = progress.add_task(method, total=settings.iterations, figures="")

                def after(done: int, loss: float, bar: Any = (progress, task)) -> None:
                    shown = f"loss {loss:.3f}"
                    bar[0].update(bar[1], completed=done, figures=shown)

                found = train(method, digits, settings, seed, after)
            results.add(found)
            angle = found["angle"]
            say(
                console,
                f"seed {seed}: {method}: {found['accuracy']:.2%} of the turned digits"
                + ("" if angle is None else f", angle {angle:.1f}°"),
            )


def _digits(data: str | None) -> DigitSplits:
    return built_in_digits() if data is None else read_digits(Path(data).expanduser())


def _about(digits: DigitSplits) -> dict[str, Any]:
    """Return what the figures are of."""
    return {
        "source": digits.source,
        "train": len(digits.train),
        "validation": len(digits.validation),
        "test": len(digits.test),
        "true_angle": ANGLE,
    }


def _announce(
    console: Console, settings: RotationSettings, digits: DigitSplits
) -> None:
    seeds = "one seed" if settings.seeds == 1 else f"{settings.seeds} seeds"
    say(
        console,
        f"Rotation: {digits.source}; {len(digits.train)} to train on, upright; "
        f"{len(digits.validation)} to validate and {len(digits.test)} to test on, "
        f"turned by {ANGLE:.0f} degrees; {settings.iterations} iterations, {seeds}",
    )
