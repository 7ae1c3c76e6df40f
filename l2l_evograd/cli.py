"""The entry point of the command ``l2l-evograd``: from errors to lines and exit codes.

Exit codes: 0 done, 2 bad input, 130 interrupted. Bad input is one line on the standard
error stream; anything that is not the user's mistake keeps its traceback.
"""

import sys
from collections.abc import Sequence
from types import TracebackType

EXTRA = "l2l-evograd[fewshot]"

# What the extra brings, by the names they are imported under.
_EXTRA_MODULES = {
    "learn2learn",
    "matplotlib",
    "numpy",
    "PIL",
    "pytorch_lightning",
    "rich",
    "scipy",
    "torchmetrics",
    "torchvision",
    "typer",
}

BAD_INPUT = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what to run instead of the process's own arguments.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        from l2l_evograd.commands import run

        return run(given)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA_MODULES:
            raise
        return _refuse(
            f"this command needs {missing}, which is not installed: "
            f"pip install '{EXTRA}'"
        )
    except (ValueError, TypeError, FileNotFoundError, PermissionError) as error:
        if not _raised_by_us(error.__traceback__):
            raise
        return _refuse(str(error))
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "interrupted", file=sys.stderr)
        return INTERRUPTED


def _refuse(text: str) -> int:
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
    return BAD_INPUT


def _raised_by_us(trace: TracebackType | None) -> bool:
    """Say whether the error was raised in this package, as its own checks do.

    An error from inside a library is a defect, of theirs or ours, and needs its
    traceback.
    """
    name = ""
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "")
        trace = trace.tb_next
    return name.partition(".")[0] == "l2l_evograd"


if __name__ == "__main__":
    sys.exit(main())
