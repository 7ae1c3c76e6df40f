"""Options of the command line, which cyclopts makes from the settings' dataclasses."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

from cyclopts import Parameter

from l2l_evograd.experiments.settings import RunSettings
from l2l_evograd.experiments.settings_file import override, read_settings

# Parameters of a command that are not options.
NotAnOption = Parameter(parse=False)

# The option of every command that reads settings from a file.
_FILE = "settings"
_SETTINGS_FILE = Annotated[
    Path | None,
    Parameter(
        help="JSON file with settings, such as settings.json of a run or best.json of "
        "a search. Other options override it."
    ),
]


def as_command(
    function: Callable[..., Any], settings: type[RunSettings]
) -> Callable[..., Any]:
    """Return a function that cyclopts turns into a command.

    Args:
        function: its first parameter is a mapping from names to the settings that the
            user gave, as options or in the file of the option ``--settings``. Each
            further parameter becomes an option, with its help text from the docstring.
            A function with a parameter ``settings`` reads that file itself.
        settings: the class from which the options are made.
    """
    first, *others = inspect.signature(function).parameters.values()
    reads = _FILE not in [parameter.name for parameter in others]

    def command(*arguments: Any, **options: Any) -> Any:
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
        name: Annotated[hint, Parameter(converter=_whole)]
        for name, hint in get_type_hints(settings).items()
        if int in (hint, *get_args(hint))
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


def _whole(_: Any, tokens: Sequence[Any]) -> int:
    """Return a whole number; cyclopts itself would round a fraction."""
    return int(tokens[-1].value)


def _keep_given(self: Any, **given: Any) -> None:
    object.__setattr__(self, "given", given)
