"""The settings of any run, and the checks that they are made of."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch

from l2l_evograd.runs.folder import SETTINGS, read_object

_Settings = TypeVar("_Settings", bound="RunSettings")


class RunSettings:
    """Settings as a file of them, and as the options of a command line.

    Each kind of run makes a frozen dataclass of this, with these attributes among its
    fields, wherever it wants them.

    Attributes:
        command: the name of the command that they belong to.
        methods: what to compare, in this order.
        seed: the first seed.
        seeds: how many seeds, counted up from ``seed``.
        devices: how many processes a run has on each machine.
        nodes: how many machines.
        free: names of settings that no figure depends on; a run may go on with others.
    """

    command: ClassVar[str]
    free: ClassVar[tuple[str, ...]] = ()
    methods: tuple[str, ...]
    seed: int
    seeds: int
    devices: int = 1
    nodes: int = 1
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def __post_init__(self) -> None:
        """Make a tuple of the methods and check the seeds.

        Raises:
            ValueError, TypeError: for values that no run can be made from.
        """
        check_whole("seed", self.seed, 0)
        check_whole("seeds", self.seeds, 1)
        if isinstance(self.methods, str):
            raise TypeError(
                f"expected methods to be a sequence of names, got the text "
                f"{self.methods!r}; write ({self.methods!r},)"
            )
        object.__setattr__(self, "methods", tuple(self.methods))

    @property
    def all_seeds(self) -> range:
        """Every seed of the run."""
        return range(self.seed, self.seed + self.seeds)

    @property
    def processes(self) -> int:
        """How many processes a run has in all."""
        return self.devices * self.nodes

    def different(self, given: Mapping[str, Any]) -> list[str]:
        """Return the names in ``given`` whose value is not the one in these settings.

        "auto" for the device agrees with any, and anything with what is ``free``.
        """
        return [
            name
            for name, value in given.items()
            if value != getattr(self, name)
            and (name, value) != ("device", "auto")
            and name not in self.free
        ]

    def with_free(self: _Settings, given: Mapping[str, Any]) -> _Settings:
        """Return the settings with those in ``given`` that are ``free``."""
        free = {name: value for name, value in given.items() if name in self.free}
        return dataclasses.replace(self, **free)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON knows them."""
        return {**dataclasses.asdict(self), "methods": list(self.methods)}

    @classmethod
    def from_dict(cls: type[_Settings], values: Mapping[str, Any]) -> _Settings:
        """Return the settings that :meth:`to_dict` wrote.

        Raises:
            ValueError: for names that are missing or unknown.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        wrong = sorted(known.symmetric_difference(values))
        if wrong:
            raise ValueError(
                f"expected the settings of a {cls.command} run of this version, got "
                f"others in {', '.join(wrong)}; start anew in another folder"
            )
        return cls(**values)

    @classmethod
    def from_file(cls: type[_Settings], out: Path) -> _Settings:
        """Return the settings of the run in ``out``.

        Raises:
            ValueError: if the file is no JSON, or of another version.
        """
        return cls.from_dict(read_object(out / SETTINGS))


def check_whole(name: str, value: object, least: int) -> None:
    """Refuse what is no whole number, or less than ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"expected {name} to be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"expected {name} to be at least {least}, got {value}")


def check_rate(name: str, value: object) -> None:
    """Refuse what is no positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected {name} to be a number, got {value!r}")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"expected {name} to be positive and finite, got {value!r}")


def check_one_of(name: str, value: object, choices: Iterable[str]) -> None:
    """Refuse a name that is not among the choices."""
    known = list(choices)
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}; choose from {', '.join(known)}")


def check_methods(methods: Sequence[str], known: Iterable[str]) -> None:
    """Refuse no methods, unknown ones, and one that comes twice."""
    known = list(known)
    if not methods:
        raise ValueError(f"expected at least one method of {', '.join(known)}")
    for method in methods:
        check_one_of("method", method, known)
    if len(set(methods)) < len(methods):
        raise ValueError(f"expected each method once, got {', '.join(methods)}")


def check_device(name: str) -> None:
    """Refuse a device that is not "auto", "cpu", "cuda" or "cuda:N", or not there."""
    if name == "auto":
        return
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"unknown device {name!r}; choose from auto, cpu, cuda, cuda:N"
        ) from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(
            f"device {name!r} is not supported here; choose from auto, cpu, cuda, "
            f"cuda:N"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {name!r} is not there: torch sees {torch.cuda.device_count()} "
            f"CUDA devices; choose cpu or auto"
        )


def found_device(name: str) -> str:
    """Return the device's name, for "auto" that of an accelerator if there is one."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
