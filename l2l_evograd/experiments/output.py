"""What a command writes: text for people, one JSON document, or nothing.

Every command has the options ``--quiet`` and ``--json``, by :func:`printing`. The
document is::

    {"command": "rotation", "version": "0.2.0", "out": "runs/rotation", "rows": [...]}

``out`` is the folder of the results, null for a command without one. ``rows`` are what
the command returns, for an experiment the summary: one object for each method.
"""

import contextlib
import functools
import inspect
import json as json_text
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar, get_type_hints

from cyclopts import Parameter
from rich.console import Console

import l2l_evograd
from l2l_evograd import interrupts
from l2l_evograd.checks import InputError
from l2l_evograd.experiments.processes import check_ranks

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Row = Mapping[str, Any]

# The descriptor of the standard output.
_OUTPUT = 1

_OPTIONS = {
    "quiet": Annotated[
        bool, Parameter(help="Print nothing but errors; files are written as ever.")
    ],
    "json": Annotated[
        bool,
        Parameter(
            help="Print the results as one JSON document, and everything else on the "
            "standard error stream."
        ),
    ],
}


class OutcomeError(InputError):
    """A command has done its work, and what came out is refused.

    Args:
        text: the line about it.
        rows: what came out.
    """

    def __init__(self, text: str, rows: Sequence[_Row]) -> None:
        super().__init__(text)
        self.rows = rows


def printing(
    command: str,
    folder: Callable[[Mapping[str, Any]], Path | None] = lambda given: given.get("out"),
) -> Callable[[_Command], _Command]:
    """Return a decorator that gives a command the options ``--quiet`` and ``--json``.

    The function has a parameter ``console``, the console to print on, and returns a
    list of rows that JSON can contain.

    Args:
        command: name of the command.
        folder: function from the command's arguments to the folder of its results;
            default: the argument ``out``.
    """

    def decorated(function: _Command) -> _Command:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def printed(
            *arguments: Any, quiet: bool = False, json: bool = False, **options: Any
        ) -> Any:
            check_ranks()
            if not (quiet or json):
                return function(*arguments, **options)
            refused: OutcomeError | None = None
            try:
                with _elsewhere(quiet) as console:
                    rows = function(*arguments, **{**options, "console": console})
            except OutcomeError as error:
                rows, refused = error.rows, error
            if json and not interrupts.follows():
                bound = signature.bind(*arguments, **options)
                bound.apply_defaults()
                print(_document(command, folder(bound.arguments), rows))
            if refused is not None:
                raise refused
            return rows

        own = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False)
            for name in _OPTIONS
        ]
        printed.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*signature.parameters.values(), *own]
        )
        printed.__annotations__ = {
            **get_type_hints(function, include_extras=True),
            **_OPTIONS,
        }
        return printed  # type: ignore[return-value]

    return decorated


@contextlib.contextmanager
def _elsewhere(quiet: bool) -> Iterator[Console]:
    """Let the body, and libraries in it, print somewhere else than on the output."""
    with contextlib.ExitStack() as stack:
        place = sys.stderr
        if quiet or place is None:
            place = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        stack.enter_context(_descriptor_to(place))
        stack.enter_context(contextlib.redirect_stdout(place))
        yield Console(quiet=True) if quiet else Console(stderr=True)


@contextlib.contextmanager
def _descriptor_to(place: TextIO) -> Iterator[None]:
    """Let other processes and code in C, which know no sys.stdout, print there too."""
    try:
        target = place.fileno()
        if sys.stdout is not None:
            sys.stdout.flush()
        kept = os.dup(_OUTPUT)
    except (OSError, ValueError):  # closed, or a stream without a descriptor
        yield
        return
    os.dup2(target, _OUTPUT)
    try:
        yield
    finally:
        os.dup2(kept, _OUTPUT)
        os.close(kept)


def _document(command: str, out: Path | None, rows: Sequence[_Row]) -> str:
    """Return the document; NaN, which JSON does not have, is an error."""
    content = {
        "command": command,
        "version": l2l_evograd.__version__,
        "out": None if out is None else str(out),
        "rows": list(rows),
    }
    return json_text.dumps(content, indent=2, allow_nan=False)
