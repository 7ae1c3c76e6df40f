"""How close draws of an estimate are to an exact vector: means, standard errors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from l2l_evograd.estimators.scaling import power_below


@dataclass(frozen=True)
class Figure:
    """A number and its standard error.

    Attributes:
        value: the number.
        error: its standard error; 0 if nothing is random, NaN if it is unknown because
            there is only one draw.
    """

    value: float
    error: float

    def __format__(self, spec: str) -> str:
        """Format the value, with ``±`` and the error on a second line if known."""
        shown = format(self.value, spec)
        if not math.isfinite(self.error) or self.error == 0:
            return shown
        return f"{shown}\n±{format(self.error, spec)}"


@dataclass(frozen=True)
class Fidelity:
    """Draws ĝ_1 .. ĝ_N of an estimate, with mean m, compared with the exact vector g.

    Attributes:
        cosine: cos(ĝ_i, g), mean over the draws.
        norm_ratio: ‖ĝ_i‖/‖g‖, mean over the draws.
        projection: ĝ_i·g/‖g‖², mean over the draws: 1 for an estimate without bias.
        mean_cosine: cos(m, g). Standard error by the jackknife.
        mean_norm_ratio: ‖m‖/‖g‖. Standard error by the jackknife.
        bias: ‖E ĝ − g‖/‖g‖, from ‖m − g‖² minus the noise of the mean; at least 0.
        noise: √(E‖ĝ − E ĝ‖²)/‖g‖, NaN for a single random draw.
    """

    cosine: Figure
    norm_ratio: Figure
    projection: Figure
    mean_cosine: Figure
    mean_norm_ratio: Figure
    bias: float
    noise: float


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Return all elements in one float64 vector on the CPU."""
    parts = [t.detach().reshape(-1).to("cpu", torch.float64) for t in tensors]
    return torch.cat(parts)


def fidelity(draws: Tensor, exact: Tensor, random: bool) -> Fidelity:
    """Compare draws with the exact vector.

    A draw that is exactly 0 has no direction; its cosine counts as 0. Draws that are
    not finite make all results NaN.

    Args:
        draws: shape (N, d), float64.
        exact: g, shape (d,), not 0.
        random: whether the draws are random. If not, errors and noise are 0.
    """
    # Powers of two, so that no square leaves the range of float64: all results are
    # relative to the exact vector.
    unit, scale = power_below(exact.abs().max()), power_below(draws.abs().max())
    exact, draws = exact / unit, draws / scale
    back = scale / unit
    norm = exact.norm()
    products = draws @ exact / norm
    squares = draws.square().sum(dim=1)
    mean = draws.mean(dim=0)
    count = len(draws)
    if not random:
        variance = 0.0
    elif count == 1:
        variance = math.nan
    else:
        variance = float((draws - mean).square().sum()) / (count - 1)
    left = 0.0 if math.isnan(variance) else variance / count * float(back.square())
    distance = float((mean * back - exact).square().sum())
    bias = math.sqrt(_at_least_0(distance - left))
    mean_cosine, mean_ratio = _of_the_mean(draws, products, squares, norm, back, random)
    own = power_below(draws.abs().amax(dim=1))
    sizes = (draws / own[:, None]).norm(dim=1)
    return Fidelity(
        cosine=figure(_cosine(products / own, sizes), random),
        norm_ratio=figure(sizes * own * back / norm, random),
        projection=figure(products * back / norm, random),
        mean_cosine=mean_cosine,
        mean_norm_ratio=mean_ratio,
        bias=bias / float(norm),
        noise=math.sqrt(variance) * float(back / norm),
    )


def figure(values: Tensor, random: bool) -> Figure:
    """Return the mean of values and, where they are random, its standard error."""
    error = 0.0
    if random:
        error = math.nan
        if len(values) > 1:
            error = float(values.std(correction=1)) / math.sqrt(len(values))
    return Figure(float(values.mean()), error)


def _cosine(products: Tensor, norms: Tensor) -> Tensor:
    return torch.where(norms == 0, 0.0, products / norms)


def _at_least_0(value: float) -> float:
    return value if math.isnan(value) else max(0.0, value)


def _of_the_mean(
    draws: Tensor,
    products: Tensor,
    squares: Tensor,
    norm: Tensor,
    back: Tensor,
    random: bool,
) -> tuple[Figure, Figure]:
    """Return cos(m, g) and ‖m‖/‖g‖ with errors from leaving out one draw at a time.

    The mean without draw i is m_i = (N m − ĝ_i)/(N − 1), so that m_i·g and ‖m_i‖²
    follow from products of the ĝ_i. The error of x is √((N−1)/N Σ(x_i − x̄)²). ``back``
    is the unit of the draws in that of the exact vector.
    """
    count = len(draws)
    mean = draws.mean(dim=0)
    product, square = products.mean(), mean.square().sum()
    cosine = float(_cosine(product, square.sqrt()))
    ratio = float(square.sqrt() * back / norm)
    if not random:
        return Figure(cosine, 0.0), Figure(ratio, 0.0)
    if count == 1:
        return Figure(cosine, math.nan), Figure(ratio, math.nan)
    left_product = (count * product - products) / (count - 1)
    left_square = count**2 * square - 2 * count * (draws @ mean) + squares
    left_square = left_square.clamp(min=0) / (count - 1) ** 2
    return (
        Figure(cosine, _jackknife_error(_cosine(left_product, left_square.sqrt()))),
        Figure(ratio, _jackknife_error(left_square.sqrt() * back / norm)),
    )


def _jackknife_error(values: Tensor) -> float:
    count = len(values)
    squares = (values - values.mean()).square().sum()
    return math.sqrt((count - 1) / count * float(squares))
