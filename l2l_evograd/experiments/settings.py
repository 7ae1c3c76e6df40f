"""Settings of a run. Each is declared once, with default, help text, bounds and role.

The options of the command line are made from these classes; see ``options.py``.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import (
    Annotated,
    Any,
    ClassVar,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from cyclopts import Parameter

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.deterministic import check_workspace
from l2l_evograd.experiments.devices import check_device, check_devices
from l2l_evograd.experiments.folder import SETTINGS, check_one_run, read_settings
from l2l_evograd.experiments.paths import expanded
from l2l_evograd.experiments.values import checked, split_names

_Settings = TypeVar("_Settings", bound="RunSettings")

# The last seed that numpy takes as well, and more seeds than anybody has waited for.
MOST_SEED = 2**32 - 1
MOST_SEEDS = 10_000

# The largest learning rate. Smaller ones make every network diverge.
MOST_RATE = 1e6


def setting(
    default: Any,
    help: str,
    *,
    least: float = 0,
    most: float | None = None,
    positive: bool = False,
    choices: Iterable[str] = (),
    if_none: str = "",
    identifies: bool = True,
    may_change: bool = False,
    **marks: Any,
) -> Any:
    """Return a dataclass field for one setting.

    Args:
        default: value if the user gives none.
        help: help text on the command line.
        least: smallest number that is accepted.
        most: largest number that is accepted; None: the usual one, see :mod:`~.values`.
        positive: for a float: refuse 0 and what is lost beside other float32 numbers.
        choices: names that are accepted; empty: any text.
        if_none: meaning of None, shown in the help text.
        identifies: whether results depend on the setting. A report compares only runs
            that agree in all such settings.
        may_change: whether a run may be resumed with another value.
        **marks: further marks. ``path``: the setting is the path of a file or folder.
            The command ``search`` reads four others, see
            :meth:`RunSettings.search_space`: ``search``, the values that it tries if
            the user names none; ``used_by``, the methods that use the setting, all if
            there is no such mark; ``fidelity``, on the setting that says how long a
            training takes, its usual value in a search; ``test_size``, on the settings
            that say how much is computed for the test.
    """
    choices = tuple(choices)
    if choices:
        help = f"{help} Choices: {', '.join(choices)}."
    if if_none:
        help = f"{help} [default: {if_none}]"
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "least": least,
            "most": most,
            "positive": positive,
            "choices": choices,
            "identifies": identifies,
            "may_change": may_change,
            **marks,
        },
    )


def _split(_: Any, tokens: Sequence[Any]) -> tuple[str, ...]:
    return split_names(tokens[-1].value)


# One option that takes several names, separated by commas.
Names = Annotated[
    tuple[str, ...],
    Parameter(converter=_split, n_tokens=1, show_default=",".join),
]
# The same, where None stands for names that depend on other settings.
NamesOrNone = Annotated[
    tuple[str, ...] | None, Parameter(converter=_split, n_tokens=1, show_default=False)
]


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings that every experiment has, and methods for all settings.

    The settings of an experiment are a frozen dataclass that is derived from this
    class. Its fields are made by :func:`setting`.

    Attributes:
        command: name of the experiment's command.
        exclusive: pairs of settings of which at most one may be given.

    Raises:
        InputError: for a value of another type or out of range, or for both settings of
            a pair.
    """

    command: ClassVar[str]
    exclusive: ClassVar[tuple[tuple[str, str], ...]] = ()

    methods: Names = setting((), "Methods to compare, separated by commas.")
    seed: int = setting(0, "First seed.", most=MOST_SEED, identifies=False)
    seeds: int = setting(
        1, "Number of seeds.", least=1, most=MOST_SEEDS, identifies=False
    )
    deterministic: bool = setting(
        False,
        "Use only algorithms that give the same bits in every run; on CUDA, some are "
        "slower and a few operations have none.",
        identifies=False,
    )

    def __post_init__(self) -> None:
        """Check every value against the type and the bounds of its field."""
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kind, optional = kind_of(hints[field.name])
            if value is None and optional:
                continue
            value = checked(field.name, kind, field.metadata, value)
            object.__setattr__(self, field.name, value)
        for one, other in self.exclusive:
            values = getattr(self, one), getattr(self, other)
            if None not in values:
                raise InputError(
                    f"expected {one} or {other}, got both: {values[0]} and {values[1]}"
                )

    @property
    def all_seeds(self) -> range:
        """Every seed of the run."""
        return range(self.seed, self.seed + self.seeds)

    @property
    def processes(self) -> int:
        """Number of processes that share the run."""
        return 1

    @property
    def side_by_side(self) -> int:
        """Number of processes that compute on this machine at the same time."""
        return 1

    def check_machine(self) -> None:
        """Refuse devices, memory, processes or paths that this machine does not have.

        The other checks do not include this one, because settings are also read on
        machines that did not make the run.
        """
        for name in self.marked("path"):
            value = getattr(self, name)
            if value is not None:
                expanded(value, f"--{name}")
        if self.deterministic:
            check_workspace()

    @classmethod
    def marked(cls, mark: str) -> tuple[str, ...]:
        """Return the names of the settings that have a mark, such as "identifies"."""
        return tuple(f.name for f in dataclasses.fields(cls) if f.metadata.get(mark))

    def identity(self) -> dict[str, Any]:
        """Return the settings that results depend on."""
        return {name: getattr(self, name) for name in self.marked("identifies")}

    def different(self, given: Mapping[str, Any]) -> list[str]:
        """Return the names in ``given`` whose values differ from these settings.

        The device "auto" agrees with any device. Settings that may change are left out.
        """
        return [
            name
            for name, value in given.items()
            if value != getattr(self, name)
            and (name, value) != ("device", "auto")
            and name not in self.marked("may_change")
        ]

    def changed(self: _Settings, given: Mapping[str, Any]) -> _Settings:
        """Return these settings, with values from ``given`` where they may change."""
        names = self.marked("may_change")
        return dataclasses.replace(
            self, **{name: value for name, value in given.items() if name in names}
        )

    def search_space(self) -> dict[str, Any]:
        """Return the settings that a search tries, if the user names none.

        Each is mapped to (low, high), (low, high, "log") or a list of values. Those
        that none of the methods uses are left out.
        """
        methods = set(self.methods or ())
        return {
            field.name: field.metadata["search"]
            for field in dataclasses.fields(self)
            if field.metadata.get("search")
            and methods & set(field.metadata.get("used_by", methods))
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON stores them."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls: type[_Settings], values: Mapping[str, Any]) -> _Settings:
        """Return the settings that :meth:`to_dict` wrote.

        Raises:
            InputError: for names that are missing or unknown.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        wrong = sorted(known.symmetric_difference(values))
        if wrong:
            raise InputError(
                f"expected the settings of a {cls.command} run of this version, got a "
                f"difference in {', '.join(wrong)}; start a new run in another folder"
            )
        return cls(**values)

    @classmethod
    def from_file(cls: type[_Settings], out: Path) -> _Settings:
        """Return the settings of the run in the folder ``out``.

        Raises:
            InputError: if the file is damaged, or belongs to another command or to
                another version.
        """
        command, values = read_settings(out)
        check_one_run(out, cls.marked("may_change"))
        if command != cls.command:
            raise InputError(
                f"expected {out / SETTINGS} to be of {cls.command}, got settings of "
                f"{command or 'no command'}; choose another folder"
            )
        try:
            return cls.from_dict(values)
        except InputError as error:
            raise InputError(f"cannot read {out / SETTINGS}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(RunSettings):
    """Settings of experiments that train networks with Lightning."""

    device: str = setting("auto", "Device: auto, cpu, cuda or cuda:N.", encoder=True)
    devices: int = setting(
        1, "Number of processes, each with a device.", least=1, most=1024, encoder=True
    )

    @property
    def processes(self) -> int:
        """Number of processes that share the run."""
        return self.devices

    @property
    def side_by_side(self) -> int:
        """Number of processes that compute on this machine at the same time."""
        return self.devices

    def check_machine(self) -> None:
        """Refuse devices or paths that this machine does not have."""
        super().check_machine()
        check_device(self.device)
        check_devices(self.devices, self.device)


def kind_of(hint: Any) -> tuple[type, bool]:
    """Return the type of a setting with this type hint, and whether it may be None."""
    kinds = get_args(hint)
    optional = NoneType in kinds
    kind = kinds[0] if optional else hint
    return get_origin(kind) or kind, optional
