"""The figures of a rotation run, and their summary."""

from statistics import fmean
from typing import Any

from l2l_evograd.runs.results import RunResults, deviation

_FIGURES = ("accuracy", "accuracy_back", "angle", "seconds_per_iteration")


class RotationResults(RunResults):
    """What a run has found so far, kept in ``results.json``."""

    def summary(self) -> list[dict[str, Any]]:
        """Return one row for each method, over all its seeds.

        Means of ``accuracy``, ``accuracy_back``, ``angle`` and
        ``seconds_per_iteration``, each with its standard deviation under the name with
        ``_sd`` behind it; ``angle`` is None for a method that learns none.
        """
        rows = []
        for method in self.settings.methods:
            runs = self.of(method)
            if not runs:
                continue
            row: dict[str, Any] = {"method": method, "seeds": len(runs)}
            for name in _FIGURES:
                values = [run[name] for run in runs if run[name] is not None]
                row[name] = fmean(values) if values else None
                row[f"{name}_sd"] = deviation(values)
            rows.append(row)
        return rows
