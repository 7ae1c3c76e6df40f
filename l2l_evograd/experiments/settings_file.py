"""Settings from a JSON file, for the option ``--settings`` of the commands."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.files import read_object
from l2l_evograd.experiments.paths import expanded
from l2l_evograd.experiments.sealed import DIGEST
from l2l_evograd.experiments.settings import RunSettings
from l2l_evograd.experiments.values import shown

# Settings take a few thousand bytes. More would take long to read.
_LARGEST = 2**20


def read_settings(kind: type[RunSettings], path: Path) -> dict[str, Any]:
    """Return the settings in a JSON file, such as ``settings.json`` of a run.

    Settings that are null have their default, and are left out.

    Args:
        kind: class of the settings.
        path: path of the file.

    Raises:
        InputError: if there is no such file, if it is not a JSON object, or for unknown
            names or values that the class refuses; names the file.
    """
    path = expanded(path, "--settings")
    if not path.is_file():
        raise InputError(f"expected --settings to be a JSON file, got {path}")
    if path.stat().st_size > _LARGEST:
        raise InputError(
            f"expected --settings to be a file of at most {_LARGEST // 2**20} MiB, got "
            f"{path} of {path.stat().st_size / 2**20:,.1f} MiB"
        )
    content = read_object(path)
    _check_own(kind, content, path)
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in content.items()
        if value is not None
    }
    try:
        check_names(kind, content)
        kind(**given)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return given


def _check_own(kind: type[RunSettings], content: dict[str, Any], path: Path) -> None:
    """Remove what ``settings.json`` of a run contains besides settings."""
    command = content.pop("command", kind.command)
    if command != kind.command:
        raise InputError(
            f"expected {path} to have settings of {kind.command}, got those of "
            f"{shown(command)}"
        )
    for name in ("format", DIGEST):  # the user may have edited a copy
        content.pop(name, None)


def check_names(kind: type[RunSettings], names: Iterable[str]) -> None:
    """Refuse names of which there is no setting.

    Raises:
        InputError: for an unknown name; lists all settings.
    """
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = [name for name in names if name not in known]
    if unknown:
        named = ", ".join(name[:100] for name in unknown[:20])
        raise InputError(
            f"{kind.command} has no setting {named}: expected {', '.join(known)}"
        )


def override(
    kind: type[RunSettings], settings: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return settings, with given ones in their place where both have a value.

    A setting gives way as well to the other one of its pair in ``kind.exclusive``.

    Args:
        kind: class of the settings.
        settings: settings by name.
        given: settings that go first, by name.
    """
    pairs = (*kind.exclusive, *(pair[::-1] for pair in kind.exclusive))
    replaced = {other for one, other in pairs if given.get(one) is not None}
    kept = {name: value for name, value in settings.items() if name not in replaced}
    return {**kept, **given}
