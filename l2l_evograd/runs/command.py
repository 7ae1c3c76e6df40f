"""What the commands share around their experiments: asking, saying, going on."""

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from l2l_evograd.runs.folder import SETTINGS, check_out
from l2l_evograd.runs.processes import leads
from l2l_evograd.runs.settings import RunSettings

_Settings = TypeVar("_Settings", bound=RunSettings)


def settings_to_run(
    kind: type[_Settings],
    options: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    out: Path,
    pictures: Sequence[str],
    resume: bool,
    overwrite: bool,
) -> _Settings:
    """Check the folder, and return the settings of the run to make or to go on with.

    Args:
        kind: of settings.
        options: a value for each of them.
        given: those that were asked for; a run that goes on must agree.
        out: folder of the run.
        pictures: as in :func:`~l2l_evograd.runs.folder.check_out`.
        resume: go on with the run in ``out``, with its settings.
        overwrite: replace the run in ``out``.

    Raises:
        ValueError, TypeError, FileNotFoundError, PermissionError: for a folder that
            will not do, both of ``resume`` and ``overwrite``, or settings that are out
            of range or not those of the run.
    """
    if resume and overwrite:
        raise ValueError("expected --resume or --overwrite, got both")
    if leads(options.get("devices", 1) * options.get("nodes", 1)):
        check_out(out, pictures, resume=resume, overwrite=overwrite)
    if not resume:
        return kind(**options)
    settings = kind.from_file(out)
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
    return settings.with_free(given)


@contextlib.contextmanager
def interruptible(out: Path, command: str) -> Iterator[None]:
    """Let an interrupt of the body say how to go on.

    Args:
        out: folder of the run.
        command: its name on the command line.

    Raises:
        KeyboardInterrupt: with that text.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(how_to_go_on(out, command)) from interrupt


def how_to_go_on(out: Path, command: str) -> str:
    """Return the command line that goes on with the run in ``out``, in a sentence."""
    if not (out / SETTINGS).exists():
        return "interrupted before anything was written"
    folder = shlex.quote(str(out))
    return f"interrupted; go on with: l2l-evograd {command} --resume --out {folder}"


def say(console: Console, text: str) -> None:
    """Print one line as it is, however long."""
    console.print(text, highlight=False, soft_wrap=True)


def say_of_seed(console: Console, settings: RunSettings, seed: int, text: str) -> None:
    """Print one line, and of which seed it is where there are several."""
    say(console, f"seed {seed}: {text}" if settings.seeds > 1 else text)


def progress_bar(console: Console) -> Progress:
    """Return a bar with a field ``figures``, which goes away at the end.

    It shows on terminals alone.
    """
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
