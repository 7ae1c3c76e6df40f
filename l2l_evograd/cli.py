"""The entry point of the command ``l2l-evograd``.

Exit codes: 0 for success, 2 for bad input, 130 for an interrupt. Bad input prints one
line on the standard error stream; every other error shows its traceback.
"""

import sys
from collections.abc import Sequence
from typing import Any

import l2l_evograd
from l2l_evograd.checks import InputError

EXTRA = "l2l-evograd[fewshot]"

BAD_INPUT = 2
INTERRUPTED = 130

# The function and the line of help of each command. The function is imported only when
# the command runs.
_IN = "l2l_evograd.experiments"
COMMANDS = {
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
        arguments: the command-line arguments; None: those of this process.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        run(given)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", __package__):
            raise
        return _refuse(
            f"this command needs {missing}, which is not installed: "
            f"pip install '{EXTRA}'"
        )
    except InputError as error:
        return _refuse(str(error))
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0 if given else BAD_INPUT


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
        version=f"l2l-evograd {l2l_evograd.__version__}",
        version_flags=["--version"],
        default_parameter=Parameter(negative=(), allow_repeating=True),
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    for name, (function, help) in COMMANDS.items():
        app.command(function, name=name, help=None if name == chosen else help)
    return app


def run(arguments: Sequence[str]) -> None:
    """Run one command line.

    Raises:
        InputError: for commands or options that do not exist or cannot be parsed, and
            for bad input that a command finds.
    """
    from cyclopts import CycloptsError

    try:
        make_app(next(iter(arguments), ""))(arguments)
    except CycloptsError as error:
        raise InputError(str(error)) from error


def _refuse(text: str) -> int:
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
    return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
