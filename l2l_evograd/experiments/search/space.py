"""Spaces of settings, as the user writes them and as the search reads them.

A space maps the name of a setting to a range or a list of values. As text, a range is
``LOW..HIGH`` or ``LOW..HIGH:log``, and a list is ``A,B,C``.
"""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, get_type_hints

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.settings import RunSettings, kind_of
from l2l_evograd.experiments.settings_file import check_names, override
from l2l_evograd.experiments.values import cut, number, shown, whole_number

# Largest number of corners of a space that are checked.
_CORNERS = 4096

# Largest number of values in a list.
_VALUES = 1000


def parse_value(kind: type[RunSettings], name: str, text: str) -> Any:
    """Return the value of a setting that a text stands for.

    Raises:
        InputError: if there is no such setting, or if the text is no such value.
    """
    check_names(kind, [name])
    wanted, _ = kind_of(get_type_hints(kind)[name])
    text = text.strip()
    try:
        if wanted is bool:
            return {"true": True, "false": False}[text.lower()]
        if wanted is int:
            return whole_number(text)
        if wanted is float:
            return number(text)
    except (KeyError, ValueError):
        expected = {bool: "true or false", int: "a whole number", float: "a number"}
        raise InputError(
            f"expected {name} to be {expected[wanted]}, got {shown(text)}"
        ) from None
    return text if wanted is str else tuple(part.strip() for part in text.split(","))


def parse_assignments(kind: type[RunSettings], texts: Iterable[str]) -> dict[str, Any]:
    """Return the settings in texts of the form ``NAME=VALUE``.

    Raises:
        InputError: for a text of another form.
    """
    pairs = [split_assignment("--set", text, "NAME=VALUE") for text in texts]
    return {name: parse_value(kind, name, value) for name, value in pairs}


def split_assignment(option: str, text: str, form: str) -> tuple[str, str]:
    """Return the name and the rest of ``NAME=REST``; dashes in the name are allowed.

    Raises:
        InputError: for a text of another form; it names the option and the form.
    """
    name, sign, rest = (part.strip() for part in text.partition("="))
    if not (name and sign and rest):
        raise InputError(f"expected {option} {form}, got {shown(text)}")
    return name.replace("-", "_"), rest


def parse_range(kind: type[RunSettings], name: str, text: str) -> Any:
    """Return a range or list of values of a setting, as the search reads it.

    Args:
        kind: class of the settings.
        name: name of the setting.
        text: ``LOW..HIGH``, ``LOW..HIGH:log`` or ``A,B,C``.

    Returns:
        ``(low, high)``, ``(low, high, "log")`` or a list.

    Raises:
        InputError: for a text of another form, values of another type, or an empty
            range.
    """
    low, dots, rest = text.partition("..")
    if not dots:
        check_names(kind, [name])
        if kind_of(get_type_hints(kind)[name])[0] is tuple:
            raise InputError(f"expected --space with single values, got {name}")
        parts = text.split(",")
        if len(parts) > _VALUES:
            raise InputError(
                f"expected at most {_VALUES} values of {name}, got {len(parts):,}"
            )
        values = [parse_value(kind, name, part) for part in parts]
        if len(set(values)) < len(values):
            raise InputError(f"expected each value of {name} once, got {cut(text)}")
        return values
    high, colon, scale = rest.partition(":")
    ends = parse_value(kind, name, low), parse_value(kind, name, high)
    if type(ends[0]) not in (int, float):
        raise InputError(
            f"expected a list of values of {name}, such as A,B, got {cut(text)}"
        )
    if colon and scale.strip() != "log":
        raise InputError(f"expected {name}=LOW..HIGH:log, got {name}={cut(text)}")
    if not ends[0] < ends[1] or (colon and ends[0] <= 0):
        positive = " and LOW above 0" if colon else ""
        raise InputError(
            f"expected {name}=LOW..HIGH with LOW < HIGH{positive}, got {cut(text)}"
        )
    return (*ends, "log") if colon else ends


def range_text(values: Any) -> str:
    """Return the text from which :func:`parse_range` makes these values."""
    if isinstance(values, list):
        return ",".join(_value_text(value) for value in values)
    low, high, *scale = values
    return f"{low!r}..{high!r}" + (":log" if scale else "")


def check_space(
    kind: type[RunSettings], space: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Refuse a space with values that the settings do not accept.

    Every value is tried alone, then the corners of the space.

    Args:
        kind: class of the settings.
        space: the space.
        settings: all other settings.

    Raises:
        InputError: for the first value or corner that is refused.
    """
    ends = {
        name: list(values if isinstance(values, list) else values[:2])
        for name, values in space.items()
    }
    alone = ({name: value} for name, values in ends.items() for value in values)
    corners = (
        dict(zip(ends, corner, strict=True))
        for corner in itertools.product(*ends.values())
    )
    for config in (*alone, *itertools.islice(corners, _CORNERS)):
        try:
            kind(**override(kind, settings, config))
        except InputError as error:
            shown = ", ".join(f"{n}={_value_text(v)}" for n, v in config.items())
            raise InputError(f"the space contains {shown}: {error}") from error


def _value_text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
