"""What a search minimises: the validation loss of one method, by its settings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from l2l_evograd.checks import InputError, NotFiniteError
from l2l_evograd.experiments.deterministic import deterministic
from l2l_evograd.experiments.search.searched import (
    SEARCHED,
    Searched,
    searched_command,
)
from l2l_evograd.experiments.search.settings import SearchSettings
from l2l_evograd.experiments.search.space import check_space, parse_range
from l2l_evograd.experiments.settings import RunSettings
from l2l_evograd.experiments.settings_file import check_names, override
from l2l_evograd.experiments.threads import threads_of_each, use_threads

# The shortest training is that part of the longest one, two steps of a factor of 3.
_SHORTEST = 9

# Settings that a search gives its trainings itself.
_OWN = ("seed", "seeds", "methods")

# The data of the last training of this process, by what they depend on.
_DATA: dict[tuple[Any, ...], Any] = {}


@dataclass(frozen=True)
class Problem:
    """The validation loss of one method of a command, by settings, length and seed.

    Attributes:
        command: name of the command.
        space: settings that are searched, with their ranges or lists of values.
        fixed: all other settings that differ from the defaults. They include
            ``methods`` with one name, and may include defaults for settings in the
            space, which the control uses.
        low, high: lengths of the shortest and the longest training.
        folder: folder for the files of the trainings, which are removed.
        threads: number of torch's threads of each process that trains.
    """

    command: str
    space: dict[str, Any]
    fixed: dict[str, Any]
    low: int
    high: int
    folder: Path
    threads: int

    def __call__(self, config: Mapping[str, Any], fidelity: int, seed: int) -> float:
        """Train from the start and return the validation loss; NaN if it diverged.

        The method is tested as well, because its experiment does so, on as little as
        the experiment allows. Nobody looks at the result.
        """
        use_threads(self.threads)  # as the first process; dask's workers begin with 1
        settings = self.settings(config, fidelity, seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        with (
            TemporaryDirectory(dir=self.folder) as folder,
            deterministic(settings.deterministic),
        ):
            experiment = self.experiment(settings, Path(folder))
            try:
                start = experiment.start(seed)
                found = experiment.one(seed, self.method, start)
            except NotFiniteError:
                return math.nan
            loss = found["validation_loss"]
        return math.nan if loss is None else float(loss)

    @property
    def searched(self) -> Searched:
        """The command."""
        return SEARCHED[self.command]

    @property
    def method(self) -> str:
        """The method that is trained."""
        (method,) = self.fixed["methods"]
        return str(method)

    def settings(
        self, config: Mapping[str, Any], fidelity: int, seed: int
    ) -> RunSettings:
        """Return the settings of one training.

        Args:
            config: settings in the space; they override the fixed ones.
            fidelity: length of the training.
            seed: seed of the training.
        """
        kind = self.searched.settings
        sizes = {name: self.searched.least(name) for name in kind.marked("test_size")}
        run = {self.searched.fidelity: fidelity, "seed": seed, "seeds": 1, **sizes}
        return kind(**override(kind, self.fixed, {**config, **run}))

    def experiment(self, settings: RunSettings, folder: Path) -> Any:
        """Return an experiment that computes the validation loss.

        Its data are those of the process's last experiment if they are the same.
        """
        searched, quiet = self.searched, Console(quiet=True)
        key = (
            self.command,
            *(getattr(settings, name) for name in searched.sources),
        )
        data = {searched.data: _DATA[key]} if key in _DATA else {}
        made = searched.make_experiment(settings, folder, quiet, **data)
        _DATA.clear()
        _DATA[key] = getattr(made, searched.data)
        made.prepare_validation()
        return made

    def best_settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content of a settings file for the command."""
        kind = self.searched.settings
        found = override(
            kind, self.fixed, {**config, self.searched.fidelity: self.high}
        )
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in found.items()
        }

    def check(self) -> None:
        """Refuse settings with which no training could run. Nothing is written.

        Raises:
            InputError: for values that the settings or the experiment refuse.
        """
        kind, first = self.searched.settings, self.settings({}, self.high, 0)
        first.check_machine()
        if first.processes > 1:
            raise InputError(
                f"a training of a search is one process: expected devices and nodes of "
                f"1, got {first.processes} processes; use --workers"
            )
        for fidelity in (self.low, self.high):
            check_space(
                kind,
                self.space,
                override(kind, self.fixed, {self.searched.fidelity: fidelity}),
            )
            for end in (0, 1):
                self.experiment(
                    self.settings(_end(self.space, end), fidelity, 0), self.folder
                )


def make_problem(settings: SearchSettings, folder: Path) -> Problem:
    """Return what a search minimises, with defaults for what the user did not give.

    Args:
        settings: settings of the search.
        folder: folder for the files of the trainings.

    Raises:
        InputError: for settings of the command that do not exist, or values out of
            range; nothing is written.
    """
    searched = searched_command(settings.experiment)
    kind, name = searched.settings, searched.fidelity
    fixed = dict(settings.fixed or {})
    check_names(kind, [*fixed, *(settings.space or {})])
    methods = tuple(fixed.get("methods") or (searched.method,))
    if len(methods) != 1:
        raise InputError(
            f"a search trains one method of {kind.command}: expected --set "
            f"methods=NAME, got {', '.join(methods)}"
        )
    fixed = {n: value for n, value in fixed.items() if n not in _OWN}
    fixed["methods"] = methods
    if settings.deterministic:
        fixed["deterministic"] = True
    high = fixed.pop(name, None) or searched.usual_fidelity
    others = [n for pair in kind.exclusive for n in pair if name in pair and n != name]
    given = [n for n in others if fixed.get(n) is not None]
    if given and settings.fidelity is None:
        raise InputError(
            f"the trainings of a search have a length in {name}, not in "
            f"{', '.join(given)}: expected --fidelity LOW..HIGH with {name}, got none"
        )
    ends = (max(searched.least(name), high // _SHORTEST), high)
    if settings.fidelity is not None:
        ends = _lengths(kind, name, settings.fidelity)
    fixed = {n: value for n, value in fixed.items() if n not in others}
    kind(**{**fixed, name: ends[1]})
    texts = settings.space
    if texts is None:
        space = kind(**{**fixed, name: ends[1]}).search_space()
    else:
        space = {n: parse_range(kind, n, text) for n, text in texts.items()}
    for own in (*_OWN, name, *others):
        if own in space:
            raise InputError(
                f"{own} cannot be searched: a search sets it itself; leave it out of "
                f"--space"
            )
    if not space:
        raise InputError(
            f"{kind.command} has no usual space for {methods[0]}: expected --space "
            f"NAME=LOW..HIGH"
        )
    threads = threads_of_each(settings.workers)
    return Problem(kind.command, space, fixed, *ends, folder, threads)


def _lengths(kind: type[RunSettings], name: str, text: str) -> tuple[int, int]:
    if ".." not in text:
        raise InputError(f"expected --fidelity LOW..HIGH, got {text!r}")
    low, high, *scale = parse_range(kind, name, text)
    if scale:
        raise InputError(f"expected --fidelity LOW..HIGH, got {text!r}")
    return low, high


def _end(space: Mapping[str, Any], end: int) -> dict[str, Any]:
    """Return the lower or the upper ends of all settings in a space."""
    return {
        name: values[-end] if isinstance(values, list) else values[end]
        for name, values in space.items()
    }
