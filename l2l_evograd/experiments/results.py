"""The results of a run, for each method and seed."""

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.folder import (
    FORMAT,
    RESULTS,
    SETTINGS,
    check_format,
    versions,
)
from l2l_evograd.experiments.processes import leads
from l2l_evograd.experiments.sealed import (
    exists,
    last_good,
    read_sealed,
    write_sealed,
)
from l2l_evograd.experiments.settings import RunSettings
from l2l_evograd.experiments.values import shown


class RunResults:
    """The results of a run so far, stored in ``results.json``.

    Args:
        out: folder of the run. Results that are already in it are read.
        settings: settings of the run.
        about: further entries for the top of the file. Results that are already there
            must agree with them.

    Attributes:
        settings: as given.
        runs: one entry for each seed and method, which its keys ``seed`` and
            ``method`` name.
        top: what the file contained when it was read.
        entries: what an entry contains besides them: the kind of each value, one of
            "number", "numbers" (a list of them), "text", "object" and "list", with "?"
            where it may be None. An entry may have more.

    Raises:
        InputError: if the file is damaged, or belongs to another run.
    """

    entries: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, out: Path, settings: RunSettings, about: Mapping[str, Any]
    ) -> None:
        self._path = out / RESULTS
        self.settings = settings
        self._about = about
        self.runs: list[dict[str, Any]] = []
        self.top: Mapping[str, Any] = self._top()
        if exists(self._path):
            try:
                content, path, _ = last_good(self._path, read_sealed)
            except InputError as error:
                raise InputError(
                    f"{error}; restore it, or remove it to make its results again from "
                    f"what is left, or start over with --overwrite"
                ) from error
            self._check(content, path)
            self.runs = self._checked_runs(content.get("runs"), path)
            self.top = content

    def check_entry(self, run: Mapping[str, Any], place: str) -> None:
        """Refuse an entry that lacks a value, or has one of another kind.

        Args:
            run: the entry.
            place: where it is, for the message.

        Raises:
            InputError: names the value.
        """
        check_entry(run, place, self.entries)

    def _checked_runs(self, runs: Any, path: Path) -> list[dict[str, Any]]:
        """Return the entries of the file if there is one for each seed and method."""
        if not isinstance(runs, list) or not all(isinstance(r, dict) for r in runs):
            raise InputError(
                f"expected runs in {path} to be a list of objects, got {shown(runs)}"
            )
        found: set[tuple[int, str]] = set()
        for number, run in enumerate(runs, start=1):
            self.check_entry(run, f"entry {number} of {path}")
            seed, method = run["seed"], run["method"]
            which = f"for seed {seed}, method {method}"
            if (seed, method) in found:
                raise InputError(f"expected one entry {which} in {path}, got several")
            free = "seeds" in self.settings.marked("may_change")
            seeds = self.settings.all_seeds
            known = seed >= seeds.start if free else seed in seeds
            if not known or method not in self.settings.methods:
                raise InputError(f"{path} has an entry {which} that is not of this run")
            found.add((seed, method))
        return runs

    def _check(self, content: Mapping[str, Any], path: Path) -> None:
        """Refuse a file that is not of this run."""
        check_format(content, path)
        there, here = content.get("settings"), self.settings.to_dict()
        command = self.settings.command
        if content.get("command") != command or not isinstance(there, dict):
            raise InputError(f"expected {path} to contain results of {command}")
        free = self.settings.marked("may_change")
        different = [
            f"{name} is {shown(there.get(name))} in it, {shown(value)} in {SETTINGS}"
            for name, value in here.items()
            if there.get(name) != value and name not in free
        ]
        different += [
            f"{name} is {shown(content.get(name))} in it, {shown(value)} now"
            for name, value in json.loads(json.dumps(self._about)).items()
            if content.get(name) != value
        ]
        if different:
            raise InputError(
                f"{path} belongs to another run: {'; '.join(different)}; put its own "
                f"file or data back, or start over with --overwrite"
            )

    def _top(self) -> dict[str, Any]:
        """Return what the file contains besides versions and results."""
        return {
            "format": FORMAT,
            "command": self.settings.command,
            "settings": self.settings.to_dict(),
            **self._about,
        }

    def has(self, seed: int, method: str) -> bool:
        """Return whether there are results for a method and seed."""
        return any(run["seed"] == seed and run["method"] == method for run in self.runs)

    def of(self, method: str) -> list[dict[str, Any]]:
        """Return the results of a method, one entry for each seed."""
        return [run for run in self.runs if run["method"] == method]

    def add(self, run: Mapping[str, Any]) -> None:
        """Add the results of one method for one seed, and write the file."""
        self.runs.append(dict(run))
        self.write()

    def write(self) -> None:
        """Write the file, if this process is the one that writes."""
        if not leads(self.settings.processes):
            return
        write_sealed(
            self._path,
            {
                **self._top(),
                "versions": versions(),
                "threads": torch.get_num_threads(),
                "summary": self.summary(),
                "runs": self.runs,
            },
        )

    def summary(self) -> list[dict[str, Any]]:
        """Return one row for each method, over all its seeds."""
        raise NotImplementedError(f"{type(self).__name__} lacks the method summary")


def check_entry(
    run: Mapping[str, Any], place: str, entries: Mapping[str, str] | None = None
) -> None:
    """Refuse an entry of results that lacks a value, or has one of another kind.

    Args:
        run: the entry.
        place: where it is, for the message.
        entries: the kinds of its values besides seed and method, as in
            :class:`RunResults`; None: only these two are looked at.

    Raises:
        InputError: names the value.
    """
    if not isinstance(run, Mapping):
        raise InputError(f"expected {place} to be an object, got {shown(run)}")
    for name, kind in {"seed": "number", "method": "text", **(entries or {})}.items():
        value, optional = run.get(name), kind.endswith("?")
        if value is None and optional:
            continue
        if not _KINDS[kind.rstrip("?")](value):
            raise InputError(
                f"expected {name!r} in {place} to be of the kind "
                f"{kind.rstrip('?')!r}, got {shown(value)}"
            )


def is_number(value: object) -> bool:
    """Return whether a value from a JSON file is a finite number."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)  # type: ignore[arg-type]


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "number": is_number,
    "numbers": lambda value: isinstance(value, list) and all(map(is_number, value)),
    "text": lambda value: isinstance(value, str),
    "object": lambda value: isinstance(value, dict),
    "list": lambda value: isinstance(value, list),
}


def finite_or_none(value: float) -> float | None:
    """Return a number as JSON can store it: None if it is NaN or infinite."""
    return value if math.isfinite(value) else None


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample; 0 for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of a mean, sd/√n; 0 for one value."""
    return deviation(values) / math.sqrt(len(values))


def half_interval(values: Sequence[float]) -> float:
    """Return half the width of the 95 % interval of a mean, 1.96 sd/√n."""
    return 1.96 * standard_error(values)
