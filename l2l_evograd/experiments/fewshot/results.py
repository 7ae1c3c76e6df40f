"""The results of a few-shot run, and their summary."""

from statistics import fmean
from typing import Any

from l2l_evograd.experiments.fewshot.methods import METHODS
from l2l_evograd.experiments.results import RunResults, standard_error


class FewShotResults(RunResults):
    """The results of a run so far, stored in ``results.json``."""

    entries = {
        "adaptation": "numbers",
        "half_intervals": "numbers",
        "iterations": "number",
        "gradients": "number",
        "seconds": "number",
        "process_seconds": "number",
        "seconds_per_iteration": "number",
        "peak_memory_bytes": "number?",
        "curve": "list",
    }

    def summary(self) -> list[dict[str, Any]]:
        """Return one row for each method, over all its seeds.

        ``at_steps`` and ``at_end`` are mean accuracies on new classes, after as many
        ``steps`` as in meta-training and after all steps of the test. ``best_step`` is
        the step with the highest mean. With several seeds, ``_error`` is the standard
        error of the mean over seeds; with one seed, half the 95 % interval of the mean
        over tasks. ``iterations``, ``gradients`` and ``seconds`` are means for a seed.
        ``peak_memory_bytes`` is None for a method that shares another's training.
        """
        settings: Any = self.settings
        rows = []
        for method in settings.methods:
            runs = self.of(method)
            if not runs:
                continue
            peaks = [run["peak_memory_bytes"] for run in runs]
            known = [peak for peak in peaks if peak is not None]
            mean = mean_curve([run["adaptation"] for run in runs])
            steps = min(settings.steps_of(METHODS[method]), settings.test_steps)
            row: dict[str, Any] = {"method": method, "seeds": len(runs), "steps": steps}
            for name, step in (("at_steps", steps), ("at_end", settings.test_steps)):
                row[name] = mean[step]
                row[f"{name}_error"] = _error(runs, step)
            row["best_step"] = mean.index(max(mean))
            for name in ("iterations", "gradients", "seconds", "process_seconds"):
                row[name] = fmean(run[name] for run in runs)
            row["seconds_per_iteration"] = fmean(
                run["seconds_per_iteration"] for run in runs
            )
            row["peak_memory_bytes"] = max(known) if known else None
            rows.append(row)
        return rows


def accuracy_by_seed(results: RunResults, method: str, step: int) -> dict[int, float]:
    """Return the accuracies of a method after a number of steps, by seed."""
    return {run["seed"]: run["adaptation"][step] for run in results.of(method)}


def mean_curve(curves: list[list[float]]) -> list[float]:
    """Return the mean of several curves at each point."""
    return [fmean(values) for values in zip(*curves, strict=True)]


def _error(runs: list[dict[str, Any]], step: int) -> float:
    if len(runs) == 1:
        return float(runs[0]["half_intervals"][step])
    return standard_error([run["adaptation"][step] for run in runs])
