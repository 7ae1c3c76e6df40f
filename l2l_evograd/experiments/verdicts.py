"""What the seeds of a run show about two methods, in words.

Two methods are compared seed by seed, because they share start and data of a seed. A
difference counts as shown only if there are at least three seeds, and 0 is outside of
its 95 % interval by Student's t: 2.8 standard errors for five seeds, 4.3 for three. By
chance, one of 20 comparisons of equal methods passes. So a shown difference is evidence
and no proof.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from scipy.special import stdtrit  # quantiles of Student's t; imports fast

from l2l_evograd.experiments.results import standard_error

# Fewer seeds say nothing about other seeds.
LEAST_SEEDS = 3
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """The mean difference between two methods over seeds.

    Attributes:
        mean: mean over the seeds of own accuracy − other accuracy, as a fraction.
        error: standard error of the mean, sd/√n; 0 for one seed.
        seeds: n.
    """

    mean: float
    error: float
    seeds: int

    @property
    def shown(self) -> bool:
        """Whether the seeds show that the two methods differ."""
        if self.seeds < LEAST_SEEDS:
            return False
        if self.error == 0:  # from accuracies on a coarse grid: no evidence
            return False
        errors = float(stdtrit(self.seeds - 1, (1 + CONFIDENCE) / 2))
        return abs(self.mean) > errors * self.error


def difference(own: Sequence[float], other: Sequence[float]) -> Difference:
    """Return the mean difference between two methods, paired by seed.

    Args:
        own: accuracy of a method for each seed, as fractions.
        other: accuracy of the other method for the same seeds, in the same order.

    Raises:
        ValueError: without any seed, if the numbers of seeds differ, or if an accuracy
            is not finite.
    """
    if not own or len(own) != len(other):
        raise ValueError(
            f"expected one accuracy of each method for every seed, got {len(own)} and "
            f"{len(other)}; pass the seeds that both methods have"
        )
    if not all(math.isfinite(value) for value in (*own, *other)):
        raise ValueError(f"expected finite accuracies, got {own} and {other}")
    by_seed = [mine - theirs for mine, theirs in zip(own, other, strict=True)]
    return Difference(fmean(by_seed), standard_error(by_seed), len(by_seed))


def paired(own: Mapping[int, float], other: Mapping[int, float]) -> Difference | None:
    """Return the difference over the seeds that both methods have; None without any.

    Args:
        own: accuracy of a method by seed.
        other: accuracy of the other method by seed.
    """
    seeds = sorted(own.keys() & other.keys())
    if not seeds:
        return None
    return difference([own[s] for s in seeds], [other[s] for s in seeds])


def sentence(name: str, other: str, difference: Difference) -> str:
    """Return one line that says whether a method differs from another one.

    Args:
        name: name of the method.
        other: name of the method that it is compared with.
        difference: from :func:`difference`.
    """
    points, seeds = 100 * difference.mean, difference.seeds
    if seeds < LEAST_SEEDS:
        return (
            f"{name} against {other}: {points:+.1f} points over {seeds} "
            f"{'seed' if seeds == 1 else 'seeds'}: nothing can be said about other "
            f"seeds; use at least {LEAST_SEEDS}."
        )
    error = 100 * difference.error
    if not difference.shown:
        return (
            f"{name} against {other}: {points:+.1f} ± {error:.1f} points over {seeds} "
            f"seeds: not shown."
        )
    place = "above" if points > 0 else "below"
    return (
        f"Over {seeds} seeds, {name} is {abs(points):.1f} ± {error:.1f} points {place} "
        f"{other} (mean ± standard error, paired by seed): shown."
    )
