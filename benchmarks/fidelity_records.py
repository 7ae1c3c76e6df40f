"""Records of a method's estimates over many batches, and their table."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from rich import box
from rich.table import Table
from torch import Tensor

from l2l_evograd.oracle.fidelity import Fidelity, Figure, figure


@dataclass(frozen=True)
class Descent:
    """Decrease of L along the estimates of a method.

    Attributes:
        delta: δ, the length of the step of λ.
        drop: L(θ'(λ)) − L(θ'(λ − δ ĝ/‖ĝ‖)), mean over the batches.
        ratio: ``drop`` divided by that of the exact hypergradient; None if L does not
            decrease along the exact hypergradient.
        downhill: fraction of the estimates along which L decreases.
    """

    delta: float
    drop: Figure
    ratio: Figure | None
    downhill: float


@dataclass(frozen=True)
class FidelityRecord:
    """How close one method comes to the exact hypergradient on one problem.

    Each figure is the mean over the batches, with its standard error.

    Attributes:
        problem: name of the problem.
        method: name of the method.
        draws: estimates for each batch; 1 if the method is not random.
        scale: factor of the estimates: 1, or lr/η for Algorithm 1, whose estimates
            belong to η = σ²(K−1)/(Kτ).
        cosine: cos(ĝ, g), where ĝ is an estimate and g is exact.
        norm_ratio: ‖ĝ‖/‖g‖.
        projection: ĝ·g/‖g‖².
        squared_bias: ‖E ĝ − g‖²/‖g‖², minus the noise that is left in the mean of the
            draws. It can be negative.
        bias: square root of ``squared_bias``; 0 if that is negative.
        noise: √(E‖ĝ − E ĝ‖²)/‖g‖, root of the mean over the batches.
        descents: one entry for each δ.
        seconds: seconds of an iteration, median.
        relative_seconds: ``seconds`` divided by the seconds of a plain training step.
        dtype: data type of all computations, the timed ones included.
    """

    problem: str
    method: str
    draws: int
    scale: float
    cosine: Figure
    norm_ratio: Figure
    projection: Figure
    squared_bias: Figure
    bias: float
    noise: float
    descents: tuple[Descent, ...]
    seconds: float
    relative_seconds: float
    dtype: str


@dataclass(frozen=True)
class FailedMethod:
    """A method of another library that fails on a problem.

    Attributes:
        problem: name of the problem.
        method: name of the method.
        error: the error that it raises, in one line.
    """

    problem: str
    method: str
    error: str


class Tally:
    """Figures of one method, batch by batch.

    Attributes:
        fidelities: one entry for each batch.
        drops: decreases of L, one tensor of shape (draws, number of δ) for each batch.
        seconds: seconds of each iteration.
    """

    def __init__(self) -> None:
        self.fidelities: list[Fidelity] = []
        self.drops: list[Tensor] = []
        self.seconds: list[float] = []

    def record(
        self,
        problem: str,
        method: str,
        scale: float,
        deltas: Sequence[float],
        exact: "Tally",
        step: float,
    ) -> FidelityRecord:
        """Return the record of the method.

        Args:
            problem: name of the problem.
            method: name of the method.
            scale: factor of the estimates.
            deltas: values of δ.
            exact: tally of the exact hypergradient.
            step: seconds of a plain training step.
        """
        found = self.fidelities
        count = len(self.drops[0])
        pairs = [_moments(each, count) for each in found]
        squared = _over([bias for bias, _ in pairs])
        return FidelityRecord(
            problem=problem,
            method=method,
            draws=count,
            scale=scale,
            cosine=_over([each.cosine.value for each in found]),
            norm_ratio=_over([each.norm_ratio.value for each in found]),
            projection=_over([each.projection.value for each in found]),
            squared_bias=squared,
            bias=max(0.0, squared.value) ** 0.5,
            noise=_over([variance for _, variance in pairs]).value ** 0.5,
            descents=self._descents(deltas, exact),
            seconds=median(self.seconds),
            relative_seconds=median(self.seconds) / step,
            dtype="float64",
        )

    def _descents(self, deltas: Sequence[float], exact: "Tally") -> tuple[Descent, ...]:
        own, best = (
            torch.stack([found.mean(dim=0) for found in tally.drops])
            for tally in (self, exact)
        )
        every = torch.cat(self.drops)
        return tuple(
            Descent(
                delta,
                figure(own[:, i], random=True),
                ratio_of_means(own[:, i], best[:, i]),
                float((every[:, i] > 0).double().mean()),
            )
            for i, delta in enumerate(deltas)
        )


def ratio_of_means(values: Tensor, reference: Tensor) -> Figure | None:
    """Return r = Σx/Σy with its standard error by the delta method; None if Σy <= 0.

    The ratios x/y of single batches have heavy tails if y comes close to 0. The
    standard error of r is that of the mean of x − r y, divided by the mean of y.
    """
    mean = float(reference.mean())
    if not mean > 0:
        return None
    ratio = float(values.mean()) / mean
    error = figure(values - ratio * reference, random=True).error
    return Figure(ratio, error / mean)


def _over(values: Sequence[float]) -> Figure:
    return figure(torch.tensor(values, dtype=torch.float64), random=True)


def _moments(found: Fidelity, draws: int) -> tuple[float, float]:
    """Return squared bias and variance of one batch's estimates, divided by ‖g‖².

    With m the mean of the draws, ‖m − g‖² = ‖m‖² − 2 m·g + ‖g‖² contains the variance
    of m in addition to the squared bias, so that variance is subtracted. A negative
    result is kept: cutting it off at 0 in each batch would turn noise into bias.
    """
    variance = found.noise**2
    distance = found.mean_norm_ratio.value**2 - 2 * found.projection.value + 1
    return distance - variance / draws, variance


def table(records: Sequence[FidelityRecord | FailedMethod]) -> Table:
    """Return a table of the records of one problem."""
    found = [record for record in records if isinstance(record, FidelityRecord)]
    failed = [record for record in records if isinstance(record, FailedMethod)]
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1), title=records[0].problem)
    shown.caption = "\n".join(f"{r.method} fails: {r.error}" for r in failed)
    shown.add_column("method", no_wrap=True)
    headings = ["cosine", "norm ratio", "bias", "noise"]
    for descent in found[0].descents:
        headings += [f"descent\nδ = {descent.delta:g}", "down-\nhill"]
    for heading in [*headings, "x plain"]:
        shown.add_column(heading, justify="right", no_wrap=True)
    for record in found:
        cells = [_cell(record.cosine), _cell(record.norm_ratio)]
        cells += [_short(record.bias), _short(record.noise)]
        for descent in record.descents:
            cells += [_cell(descent.ratio), f"{descent.downhill:.0%}"]
        shown.add_row(record.method, *cells, f"{record.relative_seconds:.3g}")
    return shown


def _short(value: float) -> str:
    # Values below 1e-6 are rounding errors.
    return "0" if value < 1e-6 else f"{value:.2g}"


def _cell(found: Figure | None) -> str:
    if found is None:
        return "-"
    if found.error < 5e-4:  # the error is smaller than the last digit shown
        return f"{found.value:.3f}"
    return f"{found.value:.3g} ± {found.error:.1g}"
