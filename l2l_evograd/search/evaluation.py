"""One training run of a search, the order of losses, and the seeds of the runs."""

import math
from dataclasses import dataclass
from typing import Any

from l2l_evograd.seeds import derive_seed


@dataclass(frozen=True)
class Evaluation:
    """One training run.

    Attributes:
        config: the configuration, a value for each name.
        fidelity: number of steps that it was trained for.
        seed: the seed that ``train`` was given.
        loss: what ``train`` returned; NaN or infinite: the run diverged.
        seconds: time that ``train`` took.
    """

    config: dict[str, Any]
    fidelity: int
    seed: int
    loss: float
    seconds: float

    @property
    def diverged(self) -> bool:
        """Whether the loss is not finite."""
        return not math.isfinite(self.loss)


def best_of(evaluations: list[Evaluation]) -> Evaluation:
    """Return the first of those with the lowest loss; diverged runs are the worst."""
    return min(evaluations, key=lambda one: (one.diverged, one.loss))


# Seeds are below 2³¹, so that numpy takes them. The lowest bit keeps both kinds apart.


def searched_seed(seed: int, number: int) -> int:
    """Return the seed of the search's evaluation ``number``; it is even."""
    return derive_seed(seed, "search", number) % 2**30 * 2


def fresh_seed(seed: int, number: int) -> int:
    """Return seed ``number`` for the answer's new training runs; it is odd."""
    return derive_seed(seed, "fresh", number) % 2**30 * 2 + 1
