"""The values that a setting may have, and the texts that stand for numbers."""

import math
import re
from collections.abc import Mapping
from numbers import Real
from typing import Any

from l2l_evograd.checks import InputError, check_choice

# What a setting may be at most if it does not say so itself.
MOST_WHOLE = 10**9
MOST = 1e6

# Positive settings are not smaller than that unless they say so themselves: in float32
# less is lost beside weights and gradients of the usual size.
LEAST_POSITIVE = 1e-12

# The longest text that a setting may be.
_LONGEST = 4096

# The largest side of images in pixels, and that of the built-in glyphs, whose drawing
# takes a minute at that size.
LARGEST_SIDE, LARGEST_GLYPHS = 512, 128

_WHOLE = re.compile(r"[+-]?[0-9]{1,30}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.ASCII | re.I)


def whole_number(text: str) -> int:
    """Return the whole number that a text stands for: ASCII digits with a sign.

    ``int`` would also take underscores and digits of other alphabets.

    Raises:
        ValueError: for another text.
    """
    if not _WHOLE.fullmatch(text.strip(" ")):
        raise ValueError(f"expected a whole number, got {shown(text)}")
    return int(text)


def number(text: str) -> float:
    """Return the number that a text stands for, as :func:`whole_number` does.

    Raises:
        ValueError: for another text, among them "nan" and "inf".
    """
    if not _NUMBER.fullmatch(text.strip(" ")):
        raise ValueError(f"expected a finite number, got {shown(text)}")
    return float(text)


def split_names(text: str) -> tuple[str, ...]:
    """Return the names in a text, which commas separate."""
    names = (name.strip() for name in text.split(","))
    return tuple(name for name in names if name)


def shown(value: object) -> str:
    """Return a value for a message, cut if it is long."""
    try:
        text = repr(value[:100] if isinstance(value, str) else value)
    except (RecursionError, ValueError):  # too nested; a number of too many digits
        text = f"a {type(value).__name__} that is too long to be shown"
    return cut(text)


def cut(text: str) -> str:
    """Return a text for a message, cut if it is long."""
    return text if len(text) <= 80 else f"{text[:77]}..."


def checked(name: str, kind: type, marks: Mapping[str, Any], value: Any) -> Any:
    """Return the value of a setting, in the type of the setting.

    Args:
        name: name of the setting.
        kind: its type.
        marks: its bounds and choices, see :func:`~.settings.setting`.
        value: the value; not None.

    Raises:
        InputError: for another type, or a value out of range.
    """
    if kind is tuple:
        return _names(name, marks["choices"], value)
    if kind is int:
        return _whole(name, value, marks["least"], marks["most"])
    if kind is float:
        return _number(name, value, marks)
    if not isinstance(value, kind):
        names: dict[type, str] = {str: "text", dict: "a mapping"}
        expected = names.get(kind, "True or False")
        raise InputError(f"expected {name} to be {expected}, got {shown(value)}")
    if isinstance(value, str):
        check_text(name, value)
        if marks["choices"]:
            check_choice(value, marks["choices"], name)
    return value


def check_text(name: str, value: str) -> None:
    """Refuse a text that is empty, too long, or that no file can contain.

    Raises:
        InputError: names the setting.
    """
    try:
        right = bool(value) and "\0" not in value and len(value) <= _LONGEST
        value.encode("utf-8")
    except UnicodeEncodeError:
        right = False
    if not right:
        raise InputError(
            f"expected {name} to be 1 to {_LONGEST} letters in UTF-8 without NUL, got "
            f"{len(value)} letters, {shown(value)}"
        )


def _whole(name: str, value: Any, least: int, most: int | None) -> int:
    limit = MOST_WHOLE if most is None else most
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(
            f"expected {name} to be a whole number of at least {least}, got "
            f"{shown(value)}"
        )
    if value > limit:
        raise InputError(
            f"expected {name} to be a whole number of at most {limit}, got "
            f"{shown(value)}"
        )
    return value


def _number(name: str, value: Any, marks: Mapping[str, Any]) -> float:
    least, most = marks["least"], marks["most"]
    if marks["positive"] and not least:
        least = LEAST_POSITIVE
    limit = MOST if most is None else most
    right = isinstance(value, Real) and not isinstance(value, bool)
    # Compared before it becomes a float, which a large whole number cannot.
    if not (right and -math.inf < value < math.inf and value >= 0) or (
        value == 0 and marks["positive"]
    ):
        expected = "positive" if marks["positive"] else "at least 0"
        raise InputError(
            f"expected {name} to be {expected} and finite, got {shown(value)}"
        )
    if not least <= value <= limit:
        raise InputError(
            f"expected {name} to be a number from {least:g} to {limit:g}, got "
            f"{shown(value)}"
        )
    return float(value) + 0.0  # -0.0 is 0.0


def _names(name: str, choices: tuple[str, ...], value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        raise InputError(
            f"expected {name} to be a sequence of names, got the text {shown(value)}; "
            f"write ({shown(value)},)"
        )
    if not isinstance(value, tuple | list):
        raise InputError(
            f"expected {name} to be a sequence of names, got {shown(value)}"
        )
    names = tuple(value)
    for each in names:
        check_choice(each[:100] if isinstance(each, str) else each, choices, name)
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"expected {name} to be one or more of {', '.join(choices)}, each at most "
            f"once, got {', '.join(names[:20]) or 'none'}"
        )
    return names


def check_glyphs(image_size: int | None) -> None:
    """Refuse a side of images that is too large for the built-in glyphs.

    Raises:
        InputError: says how large they may be.
    """
    if (image_size or 0) > LARGEST_GLYPHS:
        raise InputError(
            f"the built-in glyphs have at most {LARGEST_GLYPHS} pixels: expected an "
            f"image_size of {LARGEST_GLYPHS} or less, or photographs as data, got "
            f"{image_size}"
        )
