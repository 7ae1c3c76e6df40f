"""The results of a schedules run, and their summary."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from l2l_evograd.experiments.results import RunResults, deviation

FIGURES = ("validation_loss", "validation_accuracy", "test_loss", "test_accuracy")


class SchedulesResults(RunResults):
    """The results of a run so far, stored in ``results.json``."""

    entries = {
        "schedule": "numbers?",
        "runs": "number",
        "gradients": "number",
        "seconds": "number",
        "searched_loss": "number?",
        "curve": "list",
        "fresh": "list",
    }

    def summary(self) -> list[dict[str, Any]]:
        """Return one row for each method, over all its seeds.

        Each of ``validation_loss``, ``validation_accuracy``, ``test_loss`` and
        ``test_accuracy`` is the mean over all new training runs, and None if one of
        them diverged; ``diverged`` is their number. ``_sd`` is the standard deviation
        between searches of the means of their runs; ``_fresh_sd`` that between the runs
        of a search, as the root of the mean variance. ``searched_loss`` is the mean of
        the lowest outer losses that the searches saw. ``runs``, ``gradients`` and
        ``seconds`` are means for a search.
        """
        rows = []
        for method in self.settings.methods:
            runs = self.of(method)
            if not runs:
                continue
            row: dict[str, Any] = {"method": method, "seeds": len(runs)}
            row["diverged"] = sum(run["fresh"].count(None) for run in runs)
            for name in FIGURES:
                row.update(_figure(runs, name))
            losses = [run["searched_loss"] for run in runs]
            row["searched_loss"] = None if None in losses else fmean(losses)
            for name in ("runs", "gradients", "seconds"):
                row[name] = fmean(run[name] for run in runs)
            rows.append(row)
        return rows


def test_loss(run: Mapping[str, Any]) -> float | None:
    """Return the mean test loss of a search's new runs; None if one diverged."""
    fresh = run["fresh"]
    return None if None in fresh else fmean(own["test_loss"] for own in fresh)


def test_losses(results: RunResults, method: str) -> dict[int, float]:
    """Return the mean test losses of a method by seed, without those of None."""
    found = {run["seed"]: test_loss(run) for run in results.of(method)}
    return {seed: loss for seed, loss in found.items() if loss is not None}


def _figure(runs: list[dict[str, Any]], name: str) -> Mapping[str, float | None]:
    if any(None in run["fresh"] for run in runs):
        return {name: None, f"{name}_sd": None, f"{name}_fresh_sd": None}
    values = [[fresh[name] for fresh in run["fresh"]] for run in runs]
    means = [fmean(own) for own in values]
    within = fmean(deviation(own) ** 2 for own in values) ** 0.5
    return {
        name: fmean(means),
        f"{name}_sd": deviation(means),
        f"{name}_fresh_sd": within,
    }
