"""The training runs that a search has made, within its budget of gradients."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from l2l_evograd.checks import InputError


@dataclass(frozen=True)
class Trial:
    """One training run of a search.

    Attributes:
        rates: learning rates, one for each window, or for each step.
        loss: outer loss; None if the run diverged.
        spent: gradients that the search had spent when the run was over.
        whole: whether the run had all its steps; only then does its loss count.
    """

    rates: list[float]
    loss: float | None
    spent: int
    whole: bool = True


class Trials:
    """All training runs of a search, and what it may still spend.

    Args:
        budget: number of gradients that the search may spend.
        after: function that is called after each run with the gradients spent and the
            lowest outer loss so far.

    Attributes:
        all: the trials in their order.
        spent: number of gradients so far.
    """

    def __init__(
        self, budget: int, after: Callable[[int, float | None], None] | None = None
    ) -> None:
        self._budget = budget
        self._after = after
        self.all: list[Trial] = []
        self.spent = 0

    def allow(self, cost: int) -> bool:
        """Return whether a run of so many gradients stays within the budget."""
        return self.spent + cost <= self._budget

    def add(
        self,
        cost: int,
        rates: Sequence[float],
        loss: float | None,
        whole: bool = True,
    ) -> None:
        """Add a run.

        Args:
            cost: number of its gradients.
            rates: its learning rates.
            loss: its outer loss; None, NaN or infinite if it diverged.
            whole: whether it had all its steps.
        """
        self.spent += cost
        finite = loss if loss is not None and math.isfinite(loss) else None
        self.all.append(Trial(list(rates), finite, self.spent, whole))
        if self._after is not None:
            best = self.best
            self._after(self.spent, None if best is None else best.loss)

    @property
    def best(self) -> Trial | None:
        """The whole run with the lowest loss; None if all of them diverged."""
        return min(
            (trial for trial in self.all if trial.whole and trial.loss is not None),
            key=lambda trial: trial.loss,  # type: ignore[arg-type, return-value]
            default=None,
        )

    def curve(self) -> list[tuple[int, float]]:
        """Return (gradients spent, lowest loss of a whole run) where it got lower."""
        points: list[tuple[int, float]] = []
        for trial in self.all:
            if not trial.whole or trial.loss is None:
                continue
            if not points or trial.loss < points[-1][1]:
                points.append((trial.spent, trial.loss))
        return points


def unless_diverged(train: Callable[..., Any], **arguments: Any) -> Any | None:
    """Return what a function of ``l2l_evograd.unroll`` returns; None if it diverged.

    The arguments of the experiment's runs are checked before, so that an InputError
    means that a number was no longer finite, or too large for fixed point.
    """
    try:
        return train(**arguments)
    except InputError:
        return None
