"""The results of a cross-domain run, and their summary."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.crossdomain.settings import CrossDomainSettings
from l2l_evograd.experiments.results import (
    RunResults,
    deviation,
    half_interval,
    is_number,
)


class CrossDomainResults(RunResults):
    """The results of a run so far, stored in ``results.json``."""

    settings: CrossDomainSettings
    entries = {
        "accuracy": "object",
        "accuracies": "numbers",
        "seconds_per_iteration": "number",
        "peak_memory_bytes": "number",
    }

    def check_entry(self, run: Mapping[str, Any], place: str) -> None:
        """Refuse an entry without the accuracies of all episodes and their mean.

        Raises:
            InputError: names the value.
        """
        super().check_entry(run, place)
        count, expected = len(run["accuracies"]), self.settings.episodes
        if count != expected or not is_number(run["accuracy"].get("mean")):
            raise InputError(
                f"expected {place} to have {expected} accuracies and their mean, got "
                f"{count} and {run['accuracy']}"
            )

    def summary(self) -> list[dict[str, Any]]:
        """Return one row for each method, over all its seeds.

        ``accuracy`` and ``interval`` are the mean and confidence interval over all
        episodes of all seeds. ``seed_mean`` and ``seed_sd`` are the mean and standard
        deviation of the seeds' means. ``gain`` is the mean difference to the first
        method, episode by episode. ``gain_interval`` is over all episodes, ``gain_sd``
        over the seeds' means.
        """
        rows = []
        first = self.settings.methods[0]
        reference = {run["seed"]: run for run in self.of(first)}
        for method in self.settings.methods:
            runs = self.of(method)
            if not runs:
                continue
            episodes = [value for run in runs for value in run["accuracies"]]
            means = [run["accuracy"]["mean"] for run in runs]
            by_seed = [
                _differences(run, reference[run["seed"]])
                for run in runs
                if method != first and run["seed"] in reference
            ]
            gains = [gain for differences in by_seed for gain in differences]
            seed_gains = [fmean(differences) for differences in by_seed]
            rows.append(
                {
                    "method": method,
                    "seeds": len(runs),
                    "accuracy": fmean(episodes),
                    "interval": half_interval(episodes),
                    "seed_mean": fmean(means),
                    "seed_sd": deviation(means),
                    "gain": fmean(gains) if gains else None,
                    "gain_interval": half_interval(gains) if gains else None,
                    "gain_sd": deviation(seed_gains) if gains else None,
                    "seconds_per_iteration": fmean(
                        [run["seconds_per_iteration"] for run in runs]
                    ),
                    "peak_memory_bytes": max(run["peak_memory_bytes"] for run in runs),
                }
            )
        return rows


def _differences(run: Mapping[str, Any], other: Mapping[str, Any]) -> list[float]:
    pairs = zip(run["accuracies"], other["accuracies"], strict=True)
    return [own - theirs for own, theirs in pairs]
