"""``l2l-evograd rotation`` from its options to its report."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from l2l_evograd.fewshot.results import (
    ACCURACY,
    RESULTS,
    SETTINGS,
    check_out,
    versions,
    write_json,
)
from l2l_evograd.illustrations.digits import (
    ANGLE,
    DigitSplits,
    built_in_digits,
    read_digits,
)
from l2l_evograd.illustrations.folder import ANGLES, read_object, start
from l2l_evograd.illustrations.rotation import train
from l2l_evograd.illustrations.rotation_report import (
    draw_accuracies,
    draw_angles,
    results_table,
)
from l2l_evograd.illustrations.settings import RotationSettings


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
    if resume and overwrite:
        raise ValueError("expected --resume or --overwrite, got both")
    settings = None if resume else RotationSettings(**options)
    check_out(out, resume, overwrite)
    settings = settings or _resumed(out, given)
    try:
        digits = _digits(settings.data)
        if resume:
            runs = _finished(out)
            write_json(out / SETTINGS, settings.to_dict())
        else:
            runs = []
            start(out, settings.to_dict(), overwrite)
        _announce(console, settings, digits)
        _run(settings, digits, runs, out, console)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(_how_to_go_on(out)) from interrupt
    rows = summary(settings.methods, runs)
    draw_angles(runs, out / ANGLES)
    draw_accuracies(rows, out / ACCURACY)
    console.print(results_table(rows))
    _say(console, f"{out / RESULTS}, {ANGLES}, {ACCURACY}")
    return rows


def summary(
    methods: Sequence[str], runs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return one row for each method: means, and standard deviations over its seeds."""
    rows = []
    for method in methods:
        own = [run for run in runs if run["method"] == method]
        if not own:
            continue
        row: dict[str, Any] = {"method": method, "seeds": len(own)}
        for name in ("accuracy", "accuracy_back", "angle", "seconds_per_iteration"):
            values = [run[name] for run in own if run[name] is not None]
            row[name] = fmean(values) if values else None
            row[f"{name}_sd"] = stdev(values) if len(values) > 1 else 0.0
        rows.append(row)
    return rows


def _run(
    settings: RotationSettings,
    digits: DigitSplits,
    runs: list[dict[str, Any]],
    out: Path,
    console: Console,
) -> None:
    """Add what is missing to ``runs`` and to the file."""
    finished = {(run["seed"], run["method"]) for run in runs}
    for seed in settings.all_seeds:
        for method in settings.methods:
            if (seed, method) in finished:
                continue
            with _bar(console) as progress:
                task = progress.add_task(method, total=settings.iterations, loss="")

                def after(done: int, loss: float, bar: Any = (progress, task)) -> None:
                    bar[0].update(bar[1], completed=done, loss=f"{loss:.3f}")

                found = train(method, digits, settings, seed, after)
            runs.append(found)
            write_json(
                out / RESULTS,
                {
                    "settings": settings.to_dict(),
                    "versions": versions(),
                    "data": {
                        "source": digits.source,
                        "train": len(digits.train),
                        "validation": len(digits.validation),
                        "test": len(digits.test),
                        "true_angle": ANGLE,
                    },
                    "summary": summary(settings.methods, runs),
                    "runs": runs,
                },
            )
            angle = found["angle"]
            _say(
                console,
                f"seed {seed}: {method}: {found['accuracy']:.2%} of the turned digits"
                + ("" if angle is None else f", angle {angle:.1f}°"),
            )


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _digits(data: str | None) -> DigitSplits:
    return built_in_digits() if data is None else read_digits(Path(data).expanduser())


def _resumed(out: Path, given: Mapping[str, Any]) -> RotationSettings:
    settings = RotationSettings.from_dict(read_object(out / SETTINGS))
    different = [
        f"--{name.replace('_', '-')} is {getattr(settings, name)!r} there, {value!r} "
        f"here"
        for name, value in given.items()
        if name != "seeds" and value != getattr(settings, name)
    ]
    if different:
        raise ValueError(
            f"a run goes on with its own settings, but {'; '.join(different)}; leave "
            f"the option out or start another run with another --out"
        )
    seeds = given.get("seeds", settings.seeds)
    return dataclasses.replace(settings, seeds=max(seeds, settings.seeds))


def _finished(out: Path) -> list[dict[str, Any]]:
    if not (out / RESULTS).exists():
        return []
    return list(read_object(out / RESULTS)["runs"])


def _announce(
    console: Console, settings: RotationSettings, digits: DigitSplits
) -> None:
    seeds = "one seed" if settings.seeds == 1 else f"{settings.seeds} seeds"
    _say(
        console,
        f"Rotation: {digits.source}; {len(digits.train)} to train on, upright; "
        f"{len(digits.validation)} to validate and {len(digits.test)} to test on, "
        f"turned by {ANGLE:.0f} degrees; {settings.iterations} iterations, {seeds}",
    )


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def _how_to_go_on(out: Path) -> str:
    if not (out / SETTINGS).exists():
        return "interrupted before anything was written"
    folder = shlex.quote(str(out))
    return f"interrupted; go on with: l2l-evograd rotation --resume --out {folder}"
