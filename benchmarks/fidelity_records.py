"""What is recorded of a method's estimates over many batches, and the table of it."""

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
    """How far L goes down along the estimates of a method.

    Attributes:
        delta: δ, the length of the step of λ.
        drop: L(θ'(λ)) − L(θ'(λ − δ ĝ/‖ĝ‖)), mean over the batches.
        ratio: that mean by the exact hypergradient's; None where the latter does not
            descend.
        downhill: share of the estimates along which L goes down.
    """

    delta: float
    drop: Figure
    ratio: Figure | None
    downhill: float


@dataclass(frozen=True)
class Record:
    """What was found about one method on one problem.

    Figures are means over the batches with the standard error over them.

    Attributes:
        problem: its name.
        method: its name.
        draws: estimates for each batch; 1 where nothing is random.
        scale: what the estimates were multiplied by: 1, or lr/η for Algorithm 1, whose
            estimates stand for η = σ²(K−1)/(Kτ).
        cosine: cos(ĝ, g), ĝ an estimate and g exact.
        norm_ratio: ‖ĝ‖/‖g‖.
        projection: ĝ·g/‖g‖².
        squared_bias: ‖E ĝ − g‖²/‖g‖², free of what the number of draws leaves of the
            noise, and therefore below 0 at times.
        bias: its root; 0 where it is below 0.
        noise: √(E‖ĝ − E ĝ‖²)/‖g‖, root of the mean over the batches.
        descents: one for each δ.
        seconds: median of an iteration.
        relative_seconds: by those of a plain training step.
        dtype: in which all was computed, times as well.
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
class NotRun:
    """A method of another library that does not run on a problem.

    Attributes:
        problem: its name.
        method: its name.
        error: what it raises, in one line.
    """

    problem: str
    method: str
    error: str


class Tally:
    """What has been found about one method, batch after batch.

    Attributes:
        fidelities: of each batch.
        drops: of L for each batch, shape (draws, number of δ).
        seconds: of each iteration.
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
    ) -> Record:
        """Summarise.

        Args:
            problem: its name.
            method: its name.
            scale: what the estimates were multiplied by.
            deltas: δ.
            exact: the same for the exact hypergradient.
            step: seconds of a plain training step.
        """
        found = self.fidelities
        count = len(self.drops[0])
        pairs = [_moments(each, count) for each in found]
        squared = _over([bias for bias, _ in pairs])
        return Record(
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
    """Return Σx/Σy with its standard error by the delta method; None if Σy <= 0.

    Single x/y have heavy tails where y comes near 0. Of Σx/Σy = r the error is that of
    the mean of x − r y, by the mean of y.
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
    """Return squared bias and variance of one batch's estimates, by ‖g‖².

    ‖m − g‖² = ‖m‖² − 2 m·g + ‖g‖² holds the variance of m on top of the squared bias.
    Only a mean over batches may be cut off at 0, else noise would look like bias.
    """
    variance = found.noise**2
    distance = found.mean_norm_ratio.value**2 - 2 * found.projection.value + 1
    return distance - variance / draws, variance


def table(records: Sequence[Record | NotRun]) -> Table:
    """Return a table of the records of one problem."""
    found = [record for record in records if isinstance(record, Record)]
    failed = [record for record in records if isinstance(record, NotRun)]
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1), title=records[0].problem)
    shown.caption = "\n".join(f"{r.method} does not run: {r.error}" for r in failed)
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
    return "0" if value < 1e-6 else f"{value:.2g}"  # below is rounding


def _cell(found: Figure | None) -> str:
    if found is None:
        return "-"
    if found.error < 5e-4:  # and so below the last digit
        return f"{found.value:.3f}"
    return f"{found.value:.3g} ± {found.error:.1g}"
