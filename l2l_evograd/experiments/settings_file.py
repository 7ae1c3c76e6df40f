"""Settings from a file, for the option ``--config`` of the commands.

The file is JSON, YAML or TOML, by its suffix. A setting has the name that it has in
``settings.json`` or the one on the command line: ``meta_lr`` and ``meta-lr`` are the
same.
"""

import dataclasses
import importlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.files import as_object, read_object, read_text
from l2l_evograd.experiments.paths import expanded
from l2l_evograd.experiments.sealed import DIGEST
from l2l_evograd.experiments.settings import RunSettings, kind_of
from l2l_evograd.experiments.values import shown, split_names
from l2l_evograd.experiments.yaml_text import from_yaml

# Settings take a few thousand bytes. More would take long to read, in YAML and TOML
# much longer than in JSON.
_LARGEST = {".json": 2**20, ".yaml": 2**16, ".yml": 2**16, ".toml": 2**16}


def read_settings(kind: type[RunSettings], path: Path) -> dict[str, Any]:
    """Return the settings in a file, such as ``settings.json`` of a run.

    Settings that are null have their default, and are left out. Several names may be a
    list or, as on the command line, one text with commas.

    Args:
        kind: class of the settings.
        path: path of the file; its suffix is .json, .yaml, .yml or .toml.

    Raises:
        InputError: if there is no such file, if it is not JSON, YAML or TOML with names
            and values, or for unknown names or values that the class refuses; names the
            file.
    """
    path = expanded(path, "--config")
    largest = _LARGEST.get(path.suffix.lower())
    if not path.is_file():
        what = "something else" if path.exists() else "no file"
        raise InputError(
            f"expected --config to be a JSON, YAML or TOML file, got {path}, which is "
            f"{what}"
        )
    if largest is None:
        raise InputError(
            f"expected --config to be a JSON, YAML or TOML file by its suffix, "
            f"{', '.join(_LARGEST)}, got {path}"
        )
    if path.stat().st_size > largest:
        raise InputError(
            f"expected --config to be a file of at most {largest / 2**20:g} MiB, got "
            f"{path} of {path.stat().st_size / 2**20:,.2f} MiB"
        )
    content = _with_one_spelling(_content(path), path)
    _check_own(kind, content, path)
    try:
        check_names(kind, content)
        given = {
            name: _as_given(kind, name, value)
            for name, value in content.items()
            if value is not None
        }
        kind(**given)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return given


def _content(path: Path) -> dict[str, Any]:
    """Return the names and values in a file."""
    suffix = path.suffix.lower()
    if suffix == ".json":
        return read_object(path)
    name, parse = ("TOML", _from_toml) if suffix == ".toml" else ("YAML", from_yaml)
    text = read_text(path, name)
    try:
        content = parse(text)
    except RecursionError as error:
        raise InputError(
            f"{path} is not {name} that can be read: too nested"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is not {name} that can be read: {error}") from error
    if content is None:  # a YAML file without settings, as an empty TOML file is
        return {}
    return as_object(content, path)


def _from_toml(text: str) -> Any:
    toml = importlib.import_module(
        "tomllib" if sys.version_info >= (3, 11) else "tomli"
    )
    return toml.loads(text)


def _with_one_spelling(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the content with _ in place of - in its names."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        name = name.replace("-", "_")
        if name in found:
            raise InputError(f"{path} has {shown(name)} twice, with - and with _")
        found[name] = value
    return found


def _as_given(kind: type[RunSettings], name: str, value: Any) -> Any:
    """Return a value as the options of the command line give it."""
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and kind_of(get_type_hints(kind)[name])[0] is tuple:
        return split_names(value)
    return value


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
