"""The results of a run, for each method and seed."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from l2l_evograd.experiments.folder import RESULTS, read_object, versions, write_json
from l2l_evograd.experiments.processes import leads
from l2l_evograd.experiments.settings import RunSettings


class RunResults:
    """The results of a run so far, stored in ``results.json``.

    Args:
        out: folder of the run. Results that are already in it are read.
        settings: settings of the run.
        about: further entries for the top of the file.

    Attributes:
        settings: as given.
        runs: one entry for each seed and method, which its keys ``seed`` and
            ``method`` name.
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
