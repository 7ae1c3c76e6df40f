"""What any run of several methods and seeds keeps: its settings and its figures."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from l2l_evograd.fewshot.results import RESULTS, SETTINGS, versions, write_json

_Settings = TypeVar("_Settings", bound="RunSettings")


@dataclass(frozen=True)
class RunSettings:
    """Settings as a file of them, and as the options of a command line.

    Attributes:
        methods: what to compare, in this order.
        seed: the first seed.
        seeds: how many seeds, counted up from ``seed``.
        device: "cpu", "cuda", "cuda:1" or "auto", an accelerator if there is one.
    """

    methods: tuple[str, ...] = ()
    seed: int = 0
    seeds: int = 1
    device: str = "auto"

    @property
    def all_seeds(self) -> range:
        """Every seed of the run."""
        return range(self.seed, self.seed + self.seeds)

    def different(self, given: Mapping[str, Any]) -> list[str]:
        """Return the names in ``given`` whose value is not the one in these settings.

        "auto" for the device agrees with any.
        """
        return [
            name
            for name, value in given.items()
            if value != getattr(self, name) and (name, value) != ("device", "auto")
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON knows them."""
        return {**dataclasses.asdict(self), "methods": list(self.methods)}

    @classmethod
    def from_file(cls: type[_Settings], out: Path) -> _Settings:
        """Return the settings of the run in ``out``.

        Raises:
            ValueError: if the file is no JSON, or of another version.
        """
        values = read_object(out / SETTINGS)
        known = {field.name for field in dataclasses.fields(cls)}
        wrong = sorted(known.symmetric_difference(values))
        if wrong:
            raise ValueError(
                f"expected the settings of this version, got others in "
                f"{', '.join(wrong)}; start anew in another folder"
            )
        return cls(**{**values, "methods": tuple(values["methods"])})


class RunResults:
    """What a run has found so far, kept in ``results.json``.

    Args:
        out: folder of the run; results that are in it are read.
        settings: of the run.
        about: what else to write at the top of the file.

    Attributes:
        runs: the figures of each seed and method.
    """

    def __init__(
        self, out: Path, settings: RunSettings, about: Mapping[str, Any]
    ) -> None:
        self._path = out / RESULTS
        self.settings = settings
        self._about = about
        self.runs: list[dict[str, Any]] = []
        if self._path.exists():
            self.runs = list(read_object(self._path)["runs"])

    def has(self, seed: int, method: str) -> bool:
        """Say whether the figures of a method are there."""
        return any(run["seed"] == seed and run["method"] == method for run in self.runs)

    def of(self, method: str) -> list[dict[str, Any]]:
        """Return the figures of a method, one entry for each seed."""
        return [run for run in self.runs if run["method"] == method]

    def add(self, run: Mapping[str, Any]) -> None:
        """Add the figures of one method for one seed, and write the file."""
        self.runs.append(dict(run))
        self.write()

    def write(self) -> None:
        """Write the file in one stroke."""
        write_json(
            self._path,
            {
                "settings": self.settings.to_dict(),
                "versions": versions(),
                **self._about,
                "summary": self.summary(),
                "runs": self.runs,
            },
        )

    def summary(self) -> list[dict[str, Any]]:
        """Return one row for each method, over all its seeds."""
        raise NotImplementedError(f"{type(self).__name__} lacks the method summary")


def read_object(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds.

    Raises:
        ValueError: if it is no JSON, or no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected {path} to hold an object")
    return content
