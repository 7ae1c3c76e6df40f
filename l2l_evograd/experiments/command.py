"""Run an experiment with the options of a command, and print its results."""

import contextlib
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.deterministic import deterministic
from l2l_evograd.experiments.experiment import Experiment, say
from l2l_evograd.experiments.files import disk_errors
from l2l_evograd.experiments.folder import PICTURES, RESULTS, SETTINGS, check_out
from l2l_evograd.experiments.paths import folder_to_write
from l2l_evograd.experiments.processes import console_of, join, leads
from l2l_evograd.experiments.sealed import exists, mend
from l2l_evograd.experiments.settings import RunSettings
from l2l_evograd.experiments.threads import shared_cores
from l2l_evograd.interrupts import telling
from l2l_evograd.lock import locked

_Settings = TypeVar("_Settings", bound=RunSettings)

_ADVICE = (
    "what was written before is kept: free space, or mend the folder, and continue "
    "with --resume"
)


def settings_to_run(
    kind: type[_Settings],
    given: Mapping[str, Any],
    *,
    out: Path,
    resume: bool,
    overwrite: bool,
) -> _Settings:
    """Check the folder, and return the settings of the run to start or to resume.

    Args:
        kind: class of the settings.
        given: the settings that the user gave. A run that is resumed must agree with
            them.
        out: folder of the run.
        resume: resume the run in ``out``, with its settings.
        overwrite: replace the run in ``out``.

    Raises:
        InputError: if the folder cannot be used, if both ``resume`` and ``overwrite``
            are set, if a setting is out of range, or if a setting differs from that of
            the run to resume.
    """
    if resume and overwrite:
        raise InputError("expected --resume or --overwrite, got both")
    settings = kind.from_file(out) if resume and (out / SETTINGS).exists() else None
    fresh = kind(**given) if settings is None else settings
    if leads(fresh.processes):
        check_out(out, resume=resume, overwrite=overwrite)
    if settings is None:
        fresh.check_machine()
        return fresh
    different = [
        f"--{name.replace('_', '-')} {getattr(settings, name)!r}, got {given[name]!r}"
        for name in settings.different(given)
    ]
    if different:
        raise InputError(
            f"a run is resumed with its own settings: expected {'; '.join(different)}; "
            f"leave these options out, or start another run with another --out"
        )
    settings = settings.changed(given)
    settings.check_machine()
    return settings


def run_experiment(
    make: Callable[[_Settings, Path, Console], Experiment[_Settings]],
    kind: type[_Settings],
    given: Mapping[str, Any],
    *,
    out: Path,
    resume: bool,
    overwrite: bool,
    console: Console | None,
) -> list[dict[str, Any]]:
    """Run an experiment, draw its pictures, and print its table.

    Args:
        make: function that makes the experiment from settings, folder and console.
        kind: class of the settings.
        given: the settings that the user gave, as for :func:`settings_to_run`.
        out: folder of the run.
        resume: resume the run in ``out``.
        overwrite: replace the run in ``out``.
        console: console to print on; None: the standard output.

    Returns:
        The summary: one row for each method.

    Raises:
        InputError: for bad input, before anything is trained or written.
        KeyboardInterrupt: when interrupted; its text tells how to resume the run.
    """
    out = folder_to_write(out)

    def checked() -> _Settings:
        return settings_to_run(kind, given, out=out, resume=resume, overwrite=overwrite)

    first = checked()
    processes = first.processes
    console = console_of(processes, console)
    with (
        shared_cores(first.side_by_side),
        interruptible(out, kind.command),
        disk_errors(out, _ADVICE),
        locked(out) if leads(processes) else contextlib.nullcontext(),
    ):
        if resume and leads(processes):
            for name in (SETTINGS, RESULTS):
                if damage := mend(out / name):
                    say(console, damage)
        # Once more, because another run may have been here before the lock was taken.
        settings = checked()
        experiment = make(settings, out, console)
        settings, console = experiment.settings, experiment.console
        join(settings.processes, getattr(settings, "device", "cpu"))
        experiment.announce()
        with deterministic(settings.deterministic):
            results = experiment.run(resume)
        if leads(settings.processes):
            experiment.draw(results)
        rows = results.summary()
        console.print(experiment.table(rows))
        drawn = [name for name in PICTURES if (out / name).exists()]
        say(console, ", ".join([str(out / RESULTS), *drawn]))
        for line in experiment.conclusions(results):
            say(console, line)
    return rows


@contextlib.contextmanager
def interruptible(out: Path, command: str) -> Iterator[None]:
    """Replace an interrupt of the body by one whose text tells how to resume the run.

    Args:
        out: folder of the run.
        command: name of the command on the command line.

    Raises:
        KeyboardInterrupt: when the body is interrupted.
    """

    def text() -> str:
        if not exists(out / SETTINGS):
            return "interrupted before anything was written"
        folder = shlex.quote(str(out))
        return (
            f"interrupted; resume with: l2l-evograd {command} --resume --out {folder}"
        )

    with telling(text):
        yield
