"""Completion of commands and options in the user's shell."""

from pathlib import Path
from typing import Any

from cyclopts.completion.detect import ShellDetectionError, detect_shell

from l2l_evograd.checks import InputError, check_choice

SHELLS = ("bash", "zsh", "fish")


def shell_of(shell: str | None) -> Any:
    """Return the name of a shell; None: the one from which the command was started.

    Raises:
        InputError: for another shell.
    """
    if shell is None:
        try:
            shell = str(detect_shell())
        except ShellDetectionError as error:
            raise InputError(
                f"cannot tell which shell this is: name it, one of {', '.join(SHELLS)}"
            ) from error
    check_choice(shell, SHELLS, "the shell")
    return shell


def install(app: Any, shell: str | None) -> Path:
    """Write the script for a shell where that shell looks for it.

    For bash and zsh, a line is added to ``.bashrc`` or ``.zshrc`` as well.

    Args:
        app: the application with all commands.
        shell: name of the shell; None: the one in use.

    Returns:
        The path of the script.

    Raises:
        InputError: for another shell, or if the script cannot be written.
    """
    try:
        return Path(app.install_completion(shell=shell_of(shell)))
    except OSError as error:
        raise InputError(
            f"cannot write {error.filename} ({error.strerror}); print the script with "
            f"--show-completion and put it where your shell looks for it"
        ) from error


def script(app: Any, shell: str | None) -> str:
    """Return the script for a shell.

    Args:
        app: the application with all commands.
        shell: name of the shell; None: the one in use.

    Raises:
        InputError: for another shell.
    """
    return str(app.generate_completion(shell=shell_of(shell)))
