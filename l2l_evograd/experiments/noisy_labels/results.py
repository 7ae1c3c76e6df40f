"""The results of a noisy-labels run, and their summary."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from l2l_evograd.experiments.results import RunResults, deviation
from l2l_evograd.experiments.verdicts import paired

# Losses at which the table shows the learned weight: the loss of a right label, of
# chance, and of a wrong label.
TABLE_LOSSES = (0.0, 2.0, 8.0)
# Losses at which the picture shows the learned weight.
CURVE_LOSSES = tuple(step / 10 for step in range(101))


class NoisyLabelResults(RunResults):
    """The results of a run so far, stored in ``results.json``."""

    entries = {
        "best": "number",
        "last": "number",
        "losses": "numbers",
        "weights_before": "numbers?",
        "weights_after": "numbers?",
        "wrong_labels": "number",
        "wrong_share": "number?",
        "samples": "object?",
        "curve": "list",
        "hypergradient_norm": "number?",
        "seconds_per_iteration": "number",
        "peak_memory_bytes": "number",
    }

    def summary(self) -> list[dict[str, Any]]:
        """Return one row for each method, over all its seeds.

        ``best`` and ``last`` are test accuracies, averaged over the seeds; ``best_sd``
        and ``last_sd`` are their standard deviations. ``gain`` is the mean difference
        of ``last`` to the first method, paired by seed, and ``gain_error`` its standard
        error; None for the first method. ``v`` and ``v_start`` are the weights at
        :data:`TABLE_LOSSES`; they are None without a weight net. ``moved`` is the
        largest change of a weight between losses 0 and 10. ``wrong_share`` is the
        fraction of all weight that is on samples with wrong labels; None if samples are
        not weighted. ``wrong_labels`` is the fraction of labels that are wrong. Both
        are means over the seeds.
        """
        rows = []
        for method in self.settings.methods:
            runs = self.of(method)
            if not runs:
                continue
            best, last = ([run[name] for run in runs] for name in ("best", "last"))
            weighted = [run for run in runs if run["weights_after"] is not None]
            shares = [r["wrong_share"] for r in runs if r["wrong_share"] is not None]
            first = self.settings.methods[0]
            gain = None
            if method != first:
                gain = paired(last_by_seed(self, method), last_by_seed(self, first))
            rows.append(
                {
                    "method": method,
                    "seeds": len(runs),
                    "best": fmean(best),
                    "best_sd": deviation(best),
                    "last": fmean(last),
                    "last_sd": deviation(last),
                    "gain": None if gain is None else gain.mean,
                    "gain_error": None if gain is None else gain.error,
                    "wrong_labels": fmean(run["wrong_labels"] for run in runs),
                    "wrong_share": fmean(shares) if shares else None,
                    "v_start": _at(weighted, "weights_before"),
                    "v": _at(weighted, "weights_after"),
                    "moved": fmean(_moved(run) for run in weighted)
                    if weighted
                    else None,
                    "seconds_per_iteration": fmean(
                        [run["seconds_per_iteration"] for run in runs]
                    ),
                    "peak_memory_bytes": max(run["peak_memory_bytes"] for run in runs),
                }
            )
        return rows


def last_by_seed(results: RunResults, method: str) -> dict[int, float]:
    """Return the accuracies after the last iteration of a method."""
    return {run["seed"]: run["last"] for run in results.of(method)}


def mean_curve(curves: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean of several curves at each point."""
    return [fmean(values) for values in zip(*curves, strict=True)]


def _at(runs: Sequence[dict[str, Any]], name: str) -> list[float] | None:
    if not runs:
        return None
    curve = mean_curve([run[name] for run in runs])
    return [curve[CURVE_LOSSES.index(loss)] for loss in TABLE_LOSSES]


def _moved(run: dict[str, Any]) -> float:
    pairs = zip(run["weights_before"], run["weights_after"], strict=True)
    return max(abs(after - before) for before, after in pairs)
