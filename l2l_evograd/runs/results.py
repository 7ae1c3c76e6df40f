"""The figures that any run of several methods and seeds keeps."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from l2l_evograd.runs.folder import RESULTS, read_object, versions, write_json
from l2l_evograd.runs.processes import leads
from l2l_evograd.runs.settings import RunSettings


class RunResults:
    """What a run has found so far, kept in ``results.json``.

    Args:
        out: folder of the run; results that are in it are read.
        settings: of the run.
        about: what else to write at the top of the file.

    Attributes:
        settings: as given.
        runs: the figures of each seed and method, with these two among them.
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
        """Write the file in one stroke, where this process is the one to do so."""
        if not leads(self.settings.processes):
            return
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


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample; of less than two values, 0."""
    return statistics.stdev(values) if len(values) > 1 else 0.0
