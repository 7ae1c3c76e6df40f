"""The measurements behind a comparison: draws, descents, time and memory of a method.

:class:`Measurement` measures one method after the other on the same problem, at the
same random state, against the same exact answer.
"""

import functools
import math
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from l2l_evograd.bilevel import Hypergradient, hypergradient
from l2l_evograd.estimators import Estimator, EvoGrad
from l2l_evograd.estimators.scaling import power_below
from l2l_evograd.oracle.exact import through_higher
from l2l_evograd.oracle.fidelity import Fidelity, Figure, fidelity, figure, flat
from l2l_evograd.oracle.peak_memory import PeakMemory
from l2l_evograd.oracle.unrolled import Unrolled
from l2l_evograd.oracle.untouched import Untouched
from l2l_evograd.replay.call_state import preserved_random_state

T = TypeVar("T")

# A function that is called as hypergradient() is, for example forward_mode.
Function = Callable[..., Any]


@dataclass(frozen=True)
class Descent:
    """How far the outer loss falls along an estimate: its realised descent.

    Attributes:
        delta: δ, the length of the step of λ.
        drop: L(θ'(λ)) − L(θ'(λ − δ ĝ/‖ĝ‖)), mean over the draws, in units of L.
        ratio: ``drop`` divided by the drop of the exact hypergradient; NaN if the
            latter does not descend.
    """

    delta: float
    drop: Figure
    ratio: Figure


@dataclass(frozen=True)
class MethodRecord:
    """The measurements of one method.

    Attributes:
        method: its name.
        update: ``"gradient"`` or ``"evolution"``.
        estimator: the estimator as text.
        draws: number of independent estimates; 1 where nothing is random.
        scale: the factor that multiplied the estimates before all comparisons: 1, or
            lr/η for ``"evolution"``, whose estimate corresponds to η = σ²(K−1)/(Kτ).
        fidelity: cosines, norms, bias and noise against the exact answer.
        descents: realised descent, one entry for each δ.
        seconds: median wall time of a call.
        peak_bytes: memory that a call needs beyond the memory in use before it; None
            if not measured.
    """

    method: str
    update: str
    estimator: str
    draws: int
    scale: float
    fidelity: Fidelity
    descents: tuple[Descent, ...]
    seconds: float
    peak_bytes: int | None


class Measurement:
    """The measurements on one problem, first of the reference, then of the methods."""

    exact: list[Tensor]

    def __init__(
        self,
        problem: Unrolled,
        deltas: Sequence[float],
        draws: int,
        seed: int,
        repeats: int,
        memory: bool,
    ) -> None:
        self.problem = problem
        self.deltas = deltas
        self.draws = draws
        self.seed = seed
        self.repeats = repeats
        self.memory = memory
        self.device = problem.weights[0].device
        self.untouched = Untouched(problem.model, problem.hyperparameters)
        with self.untouched.watch("the losses"):
            self.start = problem.outer_value()

    def reference(self, allow_unused: bool) -> MethodRecord:
        """Compute and measure the exact answer, which the methods are compared with."""

        def call() -> list[Tensor]:
            return through_higher(self.problem, allow_unused)

        with self.untouched.watch("the losses"):
            self.exact = call()
        vector = flat(self.exact)
        if not bool(torch.isfinite(vector).all()) or float(vector.abs().max()) == 0:
            raise ValueError(
                "the exact hypergradient is 0 or not finite, so that nothing can be "
                "compared with it; check that the outer loss depends on the weights "
                "and the inner loss on the hyperparameters"
            )
        _, seconds, peak = self._timed(call, list, self.repeats)
        self.drops = [float(drop) for drop in self._drops(self.exact)]
        return MethodRecord(
            method="higher",
            update="gradient",
            estimator="double backward through higher",
            draws=1,
            scale=1.0,
            fidelity=fidelity(vector[None], vector, random=False),
            descents=self._descents(torch.tensor([self.drops]), random=False),
            seconds=seconds,
            peak_bytes=peak,
        )

    def record(
        self,
        name: str,
        update: str,
        estimator: Estimator | Function,
        allow_unused: bool,
    ) -> MethodRecord:
        """Draw estimates of one method and measure them; a function is not random."""
        random = isinstance(estimator, Estimator) and estimator.random
        generator = torch.Generator().manual_seed(self.seed)

        def call() -> Any:
            return self._call(update, estimator, generator, allow_unused)

        with self.untouched.watch(f"the method {name!r}"):
            call()  # warm-up; its result is not used
        scale = 1.0
        if update == "evolution" and isinstance(estimator, EvoGrad):
            scale = self.problem.lr / estimator.learning_rate
        with self.untouched.watch(f"the method {name!r}"):
            estimates, seconds, peak = self._timed(
                call,
                lambda result: self._rescaled(result, scale),
                self.draws if random else self.repeats,
            )
        estimates = estimates if random else estimates[:1]
        vectors = torch.stack([flat(estimate) for estimate in estimates])
        _say_not_finite(name, vectors)
        drops = torch.stack([self._drops(estimate) for estimate in estimates])
        return MethodRecord(
            method=name,
            update=update,
            estimator=repr(estimator),
            draws=len(estimates),
            scale=scale,
            fidelity=fidelity(vectors, flat(self.exact), random),
            descents=self._descents(drops, random),
            seconds=seconds,
            peak_bytes=peak,
        )

    def _call(
        self,
        update: str,
        estimator: Estimator | Function,
        generator: torch.Generator,
        allow_unused: bool,
    ) -> Any:
        problem = self.problem
        method: Function = estimator  # type: ignore[assignment]  # if it is no estimator
        if isinstance(estimator, Estimator):
            method = functools.partial(
                hypergradient, update=update, estimator=estimator, generator=generator
            )
        with preserved_random_state(problem.devices):
            return method(
                problem.inner_loss,
                problem.outer_loss,
                problem.model,
                problem.hyperparameters,
                lr=problem.lr,
                steps=problem.steps,
                allow_unused=allow_unused,
            )

    def _timed(
        self, call: Callable[[], T], keep: Callable[[T], list[Tensor]], times: int
    ) -> tuple[list[list[Tensor]], float, int | None]:
        """Return the kept results, the median time and the peak memory of a call."""
        peak_bytes = None
        if self.memory:
            with PeakMemory(self.device) as peak:
                call()
            peak_bytes = peak.bytes
        kept, seconds = [], []
        for _ in range(times):
            self._synchronize()
            begin = time.perf_counter()
            result = call()
            self._synchronize()
            seconds.append(time.perf_counter() - begin)
            kept.append(keep(result))
        return kept, statistics.median(seconds), peak_bytes

    def _synchronize(self) -> None:
        if self.device.type != "cpu":
            torch.get_device_module(self.device).synchronize(self.device)

    def _rescaled(self, result: Hypergradient, scale: float) -> list[Tensor]:
        """Multiply the part through the weights, but not the direct part of L."""
        estimate: list[Tensor] = result.gradients
        if scale == 1.0:
            return estimate
        direct = self.problem.direct_term(result.params)
        if direct is None:
            return [part * scale for part in estimate]
        return [
            (part - own) * scale + own
            for part, own in zip(estimate, direct, strict=True)
        ]

    def _drops(self, estimate: Sequence[Tensor]) -> Tensor:
        """Return L(θ'(λ)) − L(θ'(λ − δ ĝ/‖ĝ‖)) for each δ, float64."""
        power = float(power_below(flat(estimate).abs().max()))
        direction = [p.detach().to("cpu", torch.float64) / power for p in estimate]
        norm = float(flat(direction).norm())
        drops = []
        for delta in self.deltas:
            if not (math.isfinite(norm) and norm > 0):
                drops.append(0.0 if norm == 0 else math.nan)
                continue
            with self.problem.moved(direction, delta / norm):
                drops.append(self.start - self.problem.outer_value())
        return torch.tensor(drops, dtype=torch.float64)

    def _descents(self, drops: Tensor, random: bool) -> tuple[Descent, ...]:
        """Summarise drops of shape (draws, number of δ)."""
        return tuple(
            Descent(delta, drop := figure(column, random), _ratio(drop, best))
            for delta, column, best in zip(
                self.deltas, drops.T, self.drops, strict=True
            )
        )


def _say_not_finite(name: str, draws: Tensor) -> None:
    bad = int((~draws.isfinite()).any(dim=1).sum())
    if bad:
        warnings.warn(
            f"the hypergradient by {name!r} is NaN or infinite in {bad} of "
            f"{len(draws)} calls, so that its figures are NaN; check its settings, and "
            f"the losses at the perturbed weights",
            stacklevel=4,
        )


def _ratio(drop: Figure, best: float) -> Figure:
    if not best > 0:
        return Figure(math.nan, math.nan)
    return Figure(drop.value / best, drop.error / best)
