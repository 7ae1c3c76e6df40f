"""The application that the commands of ``l2l-evograd`` belong to."""

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import l2l_evograd

app = typer.Typer(
    name="l2l-evograd",
    help="EvoGrad for learn2learn: experiments from the command line.",
    no_args_is_help=True,
    add_completion=False,
)

# Typer may bring its own copy of click, so its errors are found by way of typer.
_UsageError: Any = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)

# Options that several commands have.
Methods = Annotated[str, typer.Option(help="Methods to compare, separated by commas.")]
Seeds = Annotated[int, typer.Option(help="Number of seeds.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
OutFolder = Annotated[
    Path, typer.Option(help="Folder for results, checkpoints and logs.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the run in --out.")
]


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code.

    Raises:
        ValueError: for options that do not exist or do not parse.
    """
    command = typer.main.get_command(app)
    try:
        code = command.main(list(arguments), "l2l-evograd", standalone_mode=False)
    except _UsageError as error:
        # NoArgsIsHelp carries the whole help page.
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            return 2
        raise ValueError(error.format_message()) from error
    return code if isinstance(code, int) else 0


def _print_version(asked: bool) -> None:
    if asked:
        print(f"l2l-evograd {l2l_evograd.__version__}")
        raise typer.Exit()


@app.callback()
def _everything(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version and exit.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """EvoGrad for learn2learn: experiments from the command line."""


@contextlib.contextmanager
def interrupt_as_line() -> Iterator[None]:
    """Say an interrupt and exit with 130; typer would make a silent exit of it."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        typer.echo(str(interrupt) or "interrupted", err=True)
        raise typer.Exit(130) from interrupt


@contextlib.contextmanager
def without_gym_notice() -> Iterator[None]:
    """Hold back the advertisement that gym prints when learn2learn imports it.

    Whatever else is written to the standard error stream meanwhile comes afterwards.
    """
    held = io.StringIO()
    try:
        with contextlib.redirect_stderr(held):
            yield
    finally:
        for line in held.getvalue().splitlines():
            if "gym" not in line.lower():
                print(line, file=sys.stderr)


def asked_for(context: typer.Context) -> dict[str, Any]:
    """Return the arguments of an experiment, from the options of its command.

    They are read off the context, so a command need not name them a second time. All
    but the folder's are settings; those on the command line, and not left to their
    defaults, come again as ``given``.
    """
    options = dict(context.params)
    out, resume, overwrite = (
        options.pop(name) for name in ("out", "resume", "overwrite")
    )
    names = (name.strip() for name in options["methods"].split(","))
    options["methods"] = tuple(name for name in names if name)
    given = {
        name: value
        for name, value in options.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
    return {
        "options": options,
        "given": given,
        "out": Path(out),
        "resume": resume,
        "overwrite": overwrite,
    }
