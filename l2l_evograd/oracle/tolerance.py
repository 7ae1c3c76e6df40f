"""How far an estimate may be from the exact answer: rounding, truncation and noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from l2l_evograd.estimators import Estimator, EvoGrad, Guided
from l2l_evograd.estimators.scaling import power_below

LEAST_DRAWS = 30  # with fewer, the standard error itself is too uncertain
_FALSE_ALARM = 1e-3  # probability that a whole check fails a correct estimate
_LEAST_ERRORS = 4.0  # least number of standard errors


def usual_rtol(estimator: Estimator, update: str, dtype: torch.dtype) -> float:
    """Return the relative tolerance that suits an estimator in a precision.

    The base is 1e-7 in float64, 1e-3 in float32 and 1e-1 in lower precision. Exact
    derivatives need only the base: ``Exact``, and ``update="evolution"`` at given
    perturbations. A finite difference adds its truncation and rounding errors,

    ``Guided``, central     10 h² + 100 eps/h
    ``Guided``, forward     10 h  + 100 eps/h
    ``EvoGrad``             10 σ² + 100 eps/σ

    with the eps of ``dtype``, for losses whose derivatives are of moderate size.
    """
    base = {torch.float64: 1e-7, torch.float32: 1e-3}.get(dtype, 1e-1)
    eps = torch.finfo(dtype).eps
    if isinstance(estimator, Guided):
        h = estimator.h
        cut = h if estimator.scheme == "forward" else h**2
        return base + 10 * cut + 100 * eps / h
    if isinstance(estimator, EvoGrad) and update == "gradient":
        return base + 10 * estimator.sigma**2 + 100 * eps / estimator.sigma
    return base


def lowest_precision(tensors: Sequence[Tensor]) -> torch.dtype:
    """Return the real floating-point type of the tensors with the largest eps."""
    kinds = {tensor.dtype.to_real() for tensor in tensors}
    return max(kinds, key=lambda kind: torch.finfo(kind).eps)


@dataclass(frozen=True)
class Quantities:
    """The expected and the found numbers, and how far apart they may be.

    All have shape (d,), float64, one entry for each element of λ in the order of
    :func:`~l2l_evograd.oracle.fidelity.flat`. Random draws add one more entry, the
    projection ĝ·g/‖g‖. It shows a wrong size that is below the noise of single entries.

    Attributes:
        expected: the exact answer g, and ‖g‖.
        found: the estimate, or the mean of its draws.
        allowed: the largest |found − expected| that passes.
        errors: standard errors of ``found``; 0 where nothing is random.
        factor: number of standard errors that ``allowed`` includes.
    """

    expected: Tensor
    found: Tensor
    allowed: Tensor
    errors: Tensor
    factor: float

    @property
    def excess(self) -> Tensor:
        """|found − expected|/allowed; infinite where it is not a number."""
        ratio = (self.found - self.expected).abs() / self.allowed
        # 0/0: no difference is allowed, and there is none.
        ratio = ratio.masked_fill(self.found == self.expected, 0.0)
        return ratio.masked_fill(ratio.isnan(), math.inf)

    @property
    def wrong(self) -> Tensor:
        """Which entries differ by more than is allowed."""
        return self.excess > 1

    @property
    def undecided(self) -> bool:
        """Whether an answer of 0 would have passed as well."""
        return bool((self.expected.abs() <= self.allowed).all())


def quantities(
    draws: Tensor, exact: Tensor, margin: Tensor, random: bool
) -> Quantities:
    """Return the numbers to compare.

    The number of standard errors is at least 4. With many entries it is larger, so that
    a correct estimate fails with a probability of 1 in 1,000 for all entries together.

    Args:
        draws: estimates, shape (N, d), float64.
        exact: g, shape (d,).
        margin: tolerance of each entry without noise, shape (d,).
        random: whether the draws are random.
    """
    if not random:
        (found,) = draws
        return Quantities(exact, found, margin, torch.zeros_like(exact), 0.0)
    power = power_below(exact.abs().max())  # no square leaves the range of float64
    direction = exact / power
    norm = direction.norm()
    if norm > 0:
        draws = torch.cat([draws, (draws @ direction / norm)[:, None]], dim=1)
        exact = torch.cat([exact, (norm * power)[None]])
        margin = torch.cat([margin, margin.max()[None]])
    errors = (draws / power).std(dim=0, correction=1) * power / math.sqrt(len(draws))
    quantile = NormalDist().inv_cdf(1 - _FALSE_ALARM / (2 * len(exact)))
    factor = max(_LEAST_ERRORS, quantile)
    mean = draws.mean(dim=0)
    return Quantities(exact, mean, margin + factor * errors, errors, factor)
