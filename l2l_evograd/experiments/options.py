"""Options of the command line, which cyclopts makes from the settings' dataclasses."""

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_args, get_type_hints

from cyclopts import Parameter

from l2l_evograd.experiments.settings import RunSettings

# Parameters of a command that are not options.
NotAnOption = Parameter(parse=False)


def as_command(
    function: Callable[..., Any], settings: type[RunSettings]
) -> Callable[..., Any]:
    """Return a function that cyclopts turns into a command.

    Args:
        function: its first parameter is a mapping from names to the settings that the
            user gave. Each further parameter becomes an option, with its help text
            from the docstring.
        settings: the class from which the options are made.
    """

    def command(given: Any = None, **others: Any) -> Any:
        return function({} if given is None else given.given, **others)

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
    first, *others = inspect.signature(function).parameters.values()
    hints = {
        **get_type_hints(function, include_extras=True),
        first.name: Annotated[kept, Parameter(name="*")],
    }
    signature = inspect.Signature([first.replace(default=None), *others])
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
