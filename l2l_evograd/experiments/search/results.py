"""The results of searches, and their summary."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from l2l_evograd.experiments.results import RunResults, deviation

# The row of the control, the command's settings as they are.
DEFAULT = "default"


class SearchResults(RunResults):
    """The results of a run so far, stored in ``results.json``."""

    entries = {
        "best": "object?",
        "default": "object",
        "searched_loss": "number?",
        "losses": "list",
        "default_losses": "list",
        "spent": "number",
        "seconds": "number",
        "evaluations": "list",
    }

    def summary(self) -> list[dict[str, Any]]:
        """Return one row for the default settings, and one for each search method.

        ``loss`` is the mean validation loss of all trainings on fresh seeds, and
        ``loss_sd`` their standard deviation; both are None if one diverged.
        ``searched_loss`` is the mean of the lowest losses that the searches saw;
        ``trainings`` and ``spent``, in trainings of full length, are means for a
        search. ``best`` contains the settings of the best search.
        """
        rows: list[dict[str, Any]] = []
        if self.runs:
            first = self.runs[0]["method"]
            rows.append(
                {
                    "method": DEFAULT,
                    "seeds": len(self.of(first)),
                    "best": self.runs[0]["default"],
                    **_losses([run["default_losses"] for run in self.of(first)]),
                }
            )
        for method in self.settings.methods:
            runs = self.of(method)
            if not runs:
                continue
            seen = [run["searched_loss"] for run in runs]
            best = best_of(runs)
            rows.append(
                {
                    "method": method,
                    "seeds": len(runs),
                    "best": None if best is None else best["best"],
                    "searched_loss": None if None in seen else fmean(seen),
                    **_losses([run["losses"] for run in runs]),
                    "trainings": fmean(len(run["evaluations"]) for run in runs),
                    "spent": fmean(run["spent"] for run in runs),
                    "seconds": fmean(run["seconds"] for run in runs),
                }
            )
        return rows


def best_of(runs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the search with the lowest mean loss on fresh seeds; None without any.

    Searches are left out of which a training on fresh seeds diverged.
    """
    whole = [run for run in runs if run["losses"] and None not in run["losses"]]
    return min(whole, key=lambda run: mean_loss(run["losses"]), default=None)


def mean_loss(losses: Sequence[float | None]) -> float:
    """Return the mean of losses; infinite if a training diverged, which is None."""
    return fmean(math.inf if loss is None else loss for loss in losses)


def _losses(found: list[list[float | None]]) -> Mapping[str, float | None]:
    losses = [loss for own in found for loss in own]
    known = [loss for loss in losses if loss is not None]
    if not losses or len(known) < len(losses):
        return {"loss": None, "loss_sd": None}
    return {"loss": fmean(known), "loss_sd": deviation(known)}
