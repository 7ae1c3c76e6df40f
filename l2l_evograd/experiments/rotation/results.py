"""The results of a rotation run, and their summary."""

from statistics import fmean
from typing import Any

from l2l_evograd.experiments.results import RunResults, deviation

_FIGURES = ("accuracy", "accuracy_back", "angle", "seconds_per_iteration")


class RotationResults(RunResults):
    """The results of a run so far, stored in ``results.json``."""

    entries = {
        "accuracy": "number",
        "accuracy_back": "number",
        "angle": "number?",
        "curve": "list?",
        "seconds_per_iteration": "number",
    }

    def summary(self) -> list[dict[str, Any]]:
        """Return one row for each method, over all its seeds.

        A row contains the means of ``accuracy``, ``accuracy_back``, ``angle`` and
        ``seconds_per_iteration``. The name of each standard deviation ends with
        ``_sd``. ``angle`` is None for a method that does not learn the angle.
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
