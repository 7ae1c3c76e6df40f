"""Options of the command line, which cyclopts makes from the settings' dataclasses."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

from cyclopts import Parameter

from l2l_evograd.data.folders import given_path
from l2l_evograd.experiments.paths import folder_to_write
from l2l_evograd.experiments.settings import RunSettings
from l2l_evograd.experiments.settings_file import override, read_settings
from l2l_evograd.experiments.threads import tell_if_busy
from l2l_evograd.experiments.values import number, whole_number

# Parameters of a command that are not options.
NotAnOption = Parameter(parse=False)


def _path(_: Any, tokens: Sequence[Any]) -> Path:
    """Return a path; an empty text would become the folder in which the user is."""
    return given_path(tokens[-1].value)


def _folder(_: Any, tokens: Sequence[Any]) -> Path:
    """Return a folder to write to, which exists or can be made."""
    return folder_to_write(tokens[-1].value, tokens[-1].keyword or "--out")


def _paths(_: Any, tokens: Sequence[Any]) -> list[Path]:
    return [given_path(token.value) for token in tokens]


def _whole(_: Any, tokens: Sequence[Any]) -> int:
    """Return a whole number; cyclopts itself would round a fraction."""
    return whole_number(tokens[-1].value)


def _number(_: Any, tokens: Sequence[Any]) -> float:
    return number(tokens[-1].value)


# Types of options that are not made from settings.
GivenPath = Annotated[Path, Parameter(converter=_path)]
OutFolder = Annotated[Path, Parameter(converter=_folder)]
GivenPaths = Annotated[list[Path], Parameter(converter=_paths)]
GivenWhole = Annotated[int, Parameter(converter=_whole)]
GivenNumber = Annotated[float, Parameter(converter=_number)]

# The option of every command that reads settings from a file.
_FILE = "config"
_SETTINGS_FILE = Annotated[
    Path | None,
    Parameter(
        converter=_path,
        help="JSON, YAML or TOML file with settings, such as settings.json of a run or "
        "best.json of a search. Other options override it.",
    ),
]


def as_command(
    function: Callable[..., Any], settings: type[RunSettings]
) -> Callable[..., Any]:
    """Return a function that cyclopts turns into a command.

    Args:
        function: its first parameter is a mapping from names to the settings that the
            user gave, as options or in the file of the option ``--config``. Each
            further parameter becomes an option, with its help text from the docstring.
            A function with a parameter ``config`` reads that file itself.
        settings: the class from which the options are made.
    """
    first, *others = inspect.signature(function).parameters.values()
    reads = _FILE not in [parameter.name for parameter in others]

    def command(*arguments: Any, **options: Any) -> Any:
        if not options.get("quiet"):
            tell_if_busy()
        given = options.pop(first.name, None)
        own = {} if given is None else given.given
        file = options.pop(_FILE, None) if reads else None
        if file is not None:
            own = override(settings, read_settings(settings, file), own)
        return function(own, *arguments, **options)

    # Cyclopts passes only the options that the user gave to the constructor, so the
    # constructor can record them. A resumed run must agree with these options, but not
    # with the defaults of the others.
    numbers = {
        name: Annotated[hint, Parameter(converter=converter)]
        for name, hint in get_type_hints(settings).items()
        for kind, converter in ((int, _whole), (float, _number))
        if kind in (hint, *get_args(hint))
    }
    members = {"__init__": _keep_given, "__annotations__": numbers}
    kept = type(settings.__name__, (settings,), members)
    if reads:
        kind = inspect.Parameter.KEYWORD_ONLY
        others.append(inspect.Parameter(_FILE, kind, default=None))
    hints = {
        _FILE: _SETTINGS_FILE,
        **get_type_hints(function, include_extras=True),
        first.name: Annotated[kept, Parameter(name="*")],
    }
    # The settings are options. They come last, so that a command may have arguments
    # without a name.
    last = first.replace(default=None, kind=inspect.Parameter.KEYWORD_ONLY)
    signature = inspect.Signature([*others, last])
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = hints
    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    return command


def _keep_given(self: Any, **given: Any) -> None:
    object.__setattr__(self, "given", given)
