"""The entry point of the command ``l2l-evograd``.

Exit codes: 0 for success, 2 for bad input, and 128 + n after signal n: 130 after an
interrupt (Ctrl-C), 143 after SIGTERM, 129 after SIGHUP. Bad input and signals print one
line on the standard error stream; every other error shows its traceback. Where nobody
reads the standard output any more, the command goes on to its end; where it cannot be
written, because a disk is full, the command ends with a line and code 2.
"""

import sys
from collections.abc import Sequence
from typing import Any

from l2l_evograd import interrupts
from l2l_evograd.checks import InputError
from l2l_evograd.streams import steady_output

EXTRA = "l2l-evograd[fewshot]"
EXTRA_OF_COMPARE = "l2l-evograd[oracle]"

BAD_INPUT = 2

# Letters of the longest line about an error. Lists of all settings are shorter.
_LONGEST = 2000

# The function and the line of help of each command. The function is imported only when
# the command runs.
_IN = "l2l_evograd.experiments"
COMMANDS = {
    "compare": (
        f"{_IN}.compare.command:compare",
        "Compare estimators of the hypergradient on your own problem.",
    ),
    "crossdomain": (
        f"{_IN}.crossdomain.command:command",
        "Few-shot learning across domains: train on all but one, test on that one.",
    ),
    "fewshot": (
        f"{_IN}.fewshot.command:command",
        "Compare meta-learning algorithms on one few-shot problem, at equal budgets.",
    ),
    "illustrate": (
        f"{_IN}.illustrate.command:illustrate",
        "Draw the paper's one-dimensional illustration.",
    ),
    "noisy-labels": (
        f"{_IN}.noisy_labels.command:command",
        "Train on wrong labels, with sample weights learned by Meta-Weight-Net.",
    ),
    "prepare": (
        f"{_IN}.crossdomain.prepare:prepare",
        "Make file lists for crossdomain's --data from archives on this machine.",
    ),
    "report": (
        f"{_IN}.crossdomain.report.command:report",
        "Combine runs of crossdomain in one Markdown report with a picture.",
    ),
    "rerun": (
        f"{_IN}.rerun:rerun",
        "Repeat a run from its results.json, and say whether the numbers agree.",
    ),
    "rotation": (
        f"{_IN}.rotation.command:command",
        "Learn a rotation angle: train on upright digits, validate on rotated digits.",
    ),
    "schedules": (
        f"{_IN}.schedules.command:command",
        "Learn the learning rates of a training run, by several methods.",
    ),
    "search": (
        f"{_IN}.search.command:command",
        "Search the settings of another command by DEHB, random search or TPE.",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the command-line arguments; None: those of this process, which then
            exists for the command alone: its handlers of signals stay to its end.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    own = arguments is None
    return interrupts.run(lambda: _written(given, own), own=own)


def _written(given: Sequence[str], own: bool) -> tuple[int, str]:
    """Do as :func:`_outcome`, whatever becomes of the standard output."""
    with steady_output(own) as output:
        outcome = _outcome(given)
    failure = output.failure
    if outcome[0] or failure is None or isinstance(failure, BrokenPipeError):
        return outcome
    return _refused(
        f"cannot write to the standard output ({failure.strerror}); the files of the "
        f"command are complete"
    )


def _outcome(given: Sequence[str]) -> tuple[int, str]:
    """Run a command line; return the exit code and a line about an error, or none."""
    try:
        run(given)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", __package__):
            raise
        extra = EXTRA_OF_COMPARE if given[:1] == ["compare"] else EXTRA
        return _refused(
            f"this command needs {missing}, which is not installed: "
            f"pip install '{extra}'"
        )
    except InputError as error:
        return _refused(str(error))
    return (0 if given else BAD_INPUT), ""


def make_app(chosen: str = "") -> Any:
    """Return the cyclopts application with all commands.

    Args:
        chosen: the command to import, so that its help can show its whole docstring.
            The help shows one line for each of the other commands.
    """
    from cyclopts import App, Parameter

    app = App(
        name="l2l-evograd",
        help="EvoGrad for learn2learn: experiments from the command line.",
        help_flags=["--help"],
        version_flags=[],
        default_parameter=Parameter(negative=(), allow_repeating=True),
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    for name, (function, help) in COMMANDS.items():
        app.command(function, name=name, help=None if name == chosen else help)
    app.command(_version, name="--version")
    app.command(_install_completion, name="--install-completion")
    app.command(_show_completion, name="--show-completion")
    return app


def _version() -> None:
    """Show the version, the environment and the versions of libraries."""
    from l2l_evograd.experiments.environment import environment

    print(environment())  # not by cyclopts, which would wrap the lines


def _install_completion(shell: str | None = None, /) -> None:
    """Let the shell complete commands and options.

    Args:
        shell: bash, zsh or fish. [default: the shell in use]
    """
    from l2l_evograd.experiments.completion import install

    path = install(make_app(), shell)
    print(f"{path}: commands and options are completed in new shells")


def _show_completion(shell: str | None = None, /) -> None:
    """Print the script with which the shell completes commands and options.

    Args:
        shell: bash, zsh or fish. [default: the shell in use]
    """
    from l2l_evograd.experiments.completion import script

    print(script(make_app(), shell))


def run(arguments: Sequence[str]) -> None:
    """Run one command line.

    Raises:
        InputError: for commands or options that do not exist or cannot be parsed, and
            for bad input that a command finds.
    """
    if list(arguments) == ["--version"]:
        _version()  # which tells of a lack of libraries, so that it needs none
        return
    from cyclopts import CycloptsError

    try:
        make_app(next(iter(arguments), ""))(arguments)
    except CycloptsError as error:
        raise InputError(str(error)) from error


def _refused(text: str) -> tuple[int, str]:
    """Return the outcome for a message, made fit for one line of a terminal."""
    line = "".join(
        letter if letter.isprintable() else ascii(letter)[1:-1]
        for letter in " ".join(text[: 2 * _LONGEST].split())
    )
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST - 300]} ... {line[-290:]}"
    return BAD_INPUT, f"error: {line}"


if __name__ == "__main__":
    sys.exit(main())
