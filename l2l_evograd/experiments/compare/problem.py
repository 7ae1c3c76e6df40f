"""The user's problem: loading its function, and telling its errors from ours."""

import contextlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from l2l_evograd.checks import InputError
from l2l_evograd.data.folders import given_path
from l2l_evograd.experiments.values import cut, shown
from l2l_evograd.oracle import compare

_FORM = "MODULE:FUNCTION or FILE.py:FUNCTION, such as problem.py:problem"

# What a problem contains: the arguments of compare().
_ARGUMENTS = inspect.signature(compare).parameters
NEEDED = tuple(
    name
    for name, argument in _ARGUMENTS.items()
    if argument.default is argument.empty and name != "lr"
)

# Packages whose code runs between a call of ours and an error of ours.
_BETWEEN = ("l2l_evograd", "torch", "higher", "contextlib")


class ProblemError(Exception):
    """The user's own code has failed. The error that it raised is the cause."""


@contextlib.contextmanager
def own_errors(what: str) -> Iterator[None]:
    """Tell errors of the user's code, which need a traceback, from ours, a line.

    Args:
        what: what the body runs, for the message.

    Raises:
        InputError: for a TypeError, ValueError or ImportError that this package raised
            because of what it was given.
        ProblemError: for every error that was raised in other code.
    """
    try:
        yield
    except (Exception, SystemExit) as error:  # a script that ends itself has failed too
        kinds = (TypeError, ValueError, ImportError)
        if isinstance(error, kinds) and _is_ours(error):
            raise InputError(f"{what}: {error}") from error
        said = cut(f"{type(error).__name__}: {error}")
        raise ProblemError(f"{what} has failed: {said}") from error


def _is_ours(error: BaseException) -> bool:
    """Return whether this package raised an error, with no user's code in between."""
    packages = []
    step = error.__traceback__
    while step is not None:
        name = str(step.tb_frame.f_globals.get("__name__", ""))
        packages.append(name.partition(".")[0])
        step = step.tb_next
    return packages[-1] == "l2l_evograd" and {*packages} <= {*_BETWEEN}


def problem_of(place: str) -> dict[str, Any]:
    """Return the problem that the user's function makes.

    Args:
        place: module or file, and name of the function.

    Raises:
        InputError: for another form, a module or function that does not exist, or if
            what the function returns is no problem.
        ProblemError: for errors of the user's own code.
    """
    module, colon, name = place.rpartition(":")
    if not (module and colon and name.isidentifier()):
        raise InputError(f"expected the problem as {_FORM}, got {shown(place)}")
    function = getattr(_loaded(module), name, None)
    if not callable(function):
        raise InputError(
            f"expected {shown(module)} to have a function {name}, got "
            f"{'none' if function is None else type(function).__name__}"
        )
    with own_errors(place):
        made = function()
    return _checked(made, place)


def _loaded(module: str) -> ModuleType:
    """Return a module by its name, or by the path of its file."""
    if module.endswith(".py"):
        return _from_file(given_path(module))
    if not all(part.isidentifier() for part in module.split(".")):
        raise InputError(f"expected the problem as {_FORM}, got {shown(module)}")
    _look_in(Path.cwd())
    with own_errors(module):
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            # Another missing module is one that the user's module imports.
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            missing = error.name
    raise InputError(
        f"there is no module {missing}, looked for in the current folder and among the "
        f"installed ones; expected {_FORM}"
    )


def _from_file(path: Path) -> ModuleType:
    """Return the module in a file, as if Python had been started with it."""
    if not path.is_file():
        raise InputError(f"there is no file {shown(str(path))}; expected {_FORM}")
    name = f"problem_in_{path.stem}"  # which is no other module, as "torch" might be
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"expected {shown(str(path))} to be a file of Python")
    made = importlib.util.module_from_spec(spec)
    _look_in(path.resolve().parent)
    sys.modules[name] = made  # dataclasses and pickle look there
    with own_errors(str(path)):
        spec.loader.exec_module(made)
    return made


def _look_in(folder: Path) -> None:
    """Let the user's modules be imported from a folder."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _checked(made: Any, place: str) -> dict[str, Any]:
    """Return a problem if it has what compare() takes, by name."""
    if not isinstance(made, Mapping):
        raise InputError(
            f"expected {place} to return a dictionary with {', '.join(NEEDED)}, got "
            f"{type(made).__name__}"
        )
    missing = [name for name in NEEDED if name not in made]
    if missing:
        raise InputError(
            f"expected {place} to return a dictionary with {', '.join(NEEDED)}; "
            f"{', '.join(missing)} is missing"
        )
    unknown = [name for name in made if name not in _ARGUMENTS]
    if unknown:
        raise InputError(
            f"{place} returns {shown(unknown[0])}, which compare() does not take: "
            f"expected {', '.join(_ARGUMENTS)}"
        )
    return dict(made)
