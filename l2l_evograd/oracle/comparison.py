"""A comparison of estimators of a hypergradient on the user's own problem.

:func:`compare` answers three questions about each estimator: how close is the estimate
to the exact answer, how far does the outer loss fall along the estimate, and what does
the estimate cost.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from l2l_evograd.checks import check_count, check_positive, check_seed
from l2l_evograd.estimators import (
    Estimator,
    EvoGrad,
    Exact,
    Guided,
    resolve_estimator,
)
from l2l_evograd.hyperparameters import Hyperparameters
from l2l_evograd.oracle.measurement import Function, Measurement, MethodRecord
from l2l_evograd.oracle.unrolled import Loss, Unrolled

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_WIDTH = 100

Method = Estimator | str | tuple[str, Estimator | str | None] | Function

DEFAULT_METHODS: dict[str, Method] = {
    "exact": Exact(),
    "guided-central": Guided(scheme="central"),
    "guided-forward": Guided(scheme="forward"),
    "evograd": EvoGrad(n_model_candidates=2),
    "evograd-paper": ("evolution", EvoGrad(n_model_candidates=2)),
}


@dataclass(frozen=True)
class Comparison:
    """The outcome of :func:`compare`.

    Attributes:
        reference: the exact answer through ``higher``, with its cost.
        records: one for each method, in the order given.
        exact: the exact hypergradient, one tensor for each hyperparameter.
        outer_loss: L(θ'(λ)) at the weights and λ of the comparison.
        lr: η of the inner step.
        steps: number of inner steps.
        weights: number of weights P.
        hyperparameters: number of hyperparameters, counted by element.
    """

    reference: MethodRecord
    records: tuple[MethodRecord, ...]
    exact: tuple[Tensor, ...]
    outer_loss: float
    lr: float
    steps: int
    weights: int
    hyperparameters: int

    def __getitem__(self, method: str) -> MethodRecord:
        """Return the record of a method by its name."""
        for record in self.records:
            if record.method == method:
                return record
        known = ", ".join(record.method for record in self.records)
        raise KeyError(f"no method {method!r}; there are {known}")

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the records, the reference first, ready for JSON; NaN becomes None."""
        return [
            _without_nan(dataclasses.asdict(record))
            for record in (self.reference, *self.records)
        ]

    def table(self) -> "Table":
        """Return a ``rich`` table, one row for each method.

        Raises:
            ImportError: if ``rich`` is not installed.
        """
        try:
            from rich import box
            from rich.table import Table
        except ImportError as error:
            raise ImportError(
                "tables are drawn with rich, which is not installed; "
                "pip install 'l2l-evograd[oracle]', or use to_dicts()"
            ) from error
        plural = "" if self.steps == 1 else "s"
        table = Table(
            box=box.SIMPLE_HEAD,
            padding=(0, 1),
            title=(
                f"{self.hyperparameters:,} hyperparameters through {self.steps} inner "
                f"step{plural} of {self.weights:,} weights, lr = {self.lr:g}"
            ),
            caption=self._caption(),
        )
        table.add_column("method", no_wrap=True)
        headings = ["cosine", "norm\nratio", "cosine\nof mean", "norm ratio\nof mean"]
        headings += [f"descent\nδ = {d.delta:g}" for d in self.reference.descents]
        for heading in [*headings, "seconds", "peak MB"]:
            table.add_column(heading, justify="right")
        for record in (self.reference, *self.records):
            table.add_row(record.method, *_cells(record))
        return table

    def print(self, console: "Console | None" = None) -> None:
        """Print the table, on standard output or another ``rich`` console.

        Raises:
            ImportError: if ``rich`` is not installed.
        """
        table = self.table()
        if console is None:
            from rich.console import Console

            console = Console()
            if console.width < _WIDTH:  # a narrower one would cut off numbers
                console = Console(width=_WIDTH)
        console.print(table)

    def _caption(self) -> str:
        draws = max(record.draws for record in self.records)
        text = "All but cost relative to the exact answer. "
        if draws > 1:
            text += f"Random methods: mean of {draws} draws ± standard error. "
        scaled = [r.method for r in self.records if r.update == "evolution"]
        if scaled:
            text += f"{', '.join(scaled)}: times lr/η, η = σ²(K−1)/(Kτ)."
        return text


def compare(
    model: nn.Module,
    inner_loss: Loss,
    outer_loss: Loss,
    hyperparameters: Hyperparameters,
    *,
    lr: float,
    estimators: Mapping[str, Method] | None = None,
    draws: int = 32,
    deltas: Sequence[float] = (0.03, 0.3),
    seed: int = 0,
    steps: int = 1,
    repeats: int = 3,
    memory: bool = True,
    allow_unused: bool = False,
) -> Comparison:
    """Compare estimates of a hypergradient with the exact one.

    For estimates ĝ of the exact g = dL(θ'(λ))/dλ, this measures the cosine
    ĝ·g/(‖ĝ‖‖g‖) and the norm ratio ‖ĝ‖/‖g‖, of single draws and of their mean, and the
    realised descent

        [L(θ'(λ)) − L(θ'(λ − δ ĝ/‖ĝ‖))] / [L(θ'(λ)) − L(θ'(λ − δ g/‖g‖))],

    with θ' computed again at the moved λ. On networks with kinks the realised descent
    is the most important number, because there the exact g does not describe finite
    steps correctly either.

    An estimate of ``update="evolution"`` corresponds to an inner learning rate of
    η = σ²(K−1)/(Kτ), and is multiplied by lr/η first. The direct dependence of L on λ
    is not multiplied. This estimate is still taken near θ, while the others are taken
    at θ', so for a large lr its norm ratio need not be near 1.

    Every call starts from the same random state, hence from the same dropout masks.
    Draws differ only in their perturbations. The random state, the parameters, the
    buffers and every ``.grad`` are unchanged afterwards, bit for bit; a method or a
    loss that changes them gets an error, and they are restored. A method whose estimate
    is not finite has NaN in the table, and a warning names it. While descents
    are measured, λ is written in place; see :meth:`Unrolled.moved`.

    Args:
        model: the module; its parameters that require grad and are not λ are θ.
        inner_loss: ℓ, a function from a module that stands for the model to a scalar.
        outer_loss: L, likewise.
        hyperparameters: λ, inside or outside the model; see :func:`hypergradient`.
        lr: η of the inner step.
        estimators: name -> estimator, name of an estimator, a pair (update,
            estimator), or a function that is called as :func:`hypergradient` is, with
            ``lr``, ``steps`` and ``allow_unused``, and returns an object with
            ``gradients``, such as :func:`~l2l_evograd.unroll.forward_mode`. By default
            Exact, Guided in both schemes, EvoGrad with K = 2, and the paper's Algorithm
            1 with K = 2.
        draws: number of estimates of a random method. With 1, errors are unknown.
        deltas: lengths δ of the steps of λ. In float32, rounding hides a small δ.
        seed: seed of the perturbations; each method starts from this seed.
        steps: number of inner steps.
        repeats: number of timed calls of a method that is not random.
        memory: whether to measure peak memory.
        allow_unused: whether a hyperparameter may have no effect.

    Returns:
        :class:`Comparison`, with the records and their table.

    Raises:
        ImportError: if ``higher`` is not installed.
        TypeError: for arguments of the wrong kind.
        ValueError: for values out of range, hyperparameters that are not found or not
            used, losses that are not finite scalars, an exact answer of 0, or a method
            that changes the model.

    Cost:
        For each draw one call of the estimator, and for each draw and δ one inner step
        with one outer forward pass; two more calls of each method to warm up and to
        measure memory. Stores draws x (number of hyperparameters) float64 numbers.
    """
    problem = Unrolled(model, inner_loss, outer_loss, hyperparameters, lr, steps)
    methods = _resolved(DEFAULT_METHODS if estimators is None else estimators)
    check_count(draws, "draws")
    check_count(repeats, "repeats")
    check_seed(seed)
    measurement = Measurement(
        problem, _checked_deltas(deltas), draws, seed, repeats, memory
    )
    reference = measurement.reference(allow_unused)
    records = tuple(
        measurement.record(name, update, estimator, allow_unused)
        for name, (update, estimator) in methods.items()
    )
    return Comparison(
        reference=reference,
        records=records,
        exact=tuple(measurement.exact),
        outer_loss=measurement.start,
        lr=problem.lr,
        steps=problem.steps,
        weights=sum(weight.numel() for weight in problem.weights),
        hyperparameters=sum(t.numel() for t in problem.hyperparameters),
    )


def _resolved(
    estimators: Mapping[str, Method],
) -> dict[str, tuple[str, Estimator | Function]]:
    """Return name -> (update, estimator or function)."""
    if not isinstance(estimators, Mapping):
        raise TypeError(
            f"expected estimators to be a dictionary of names to estimators, got "
            f"{type(estimators).__name__}"
        )
    if not estimators:
        raise ValueError(
            "expected at least one estimator, got an empty dictionary; leave "
            "estimators=None for the default ones"
        )
    resolved: dict[str, tuple[str, Estimator | Function]] = {}
    for name, method in estimators.items():
        if not isinstance(name, str):
            raise TypeError(
                f"expected the keys of estimators to be names, got {name!r}"
            )
        if isinstance(method, tuple) and len(method) != 2:
            raise ValueError(
                f"expected estimators[{name!r}] to be an estimator or a pair "
                f"(update, estimator), got {len(method)} items"
            )
        if callable(method) and not isinstance(method, Estimator):
            resolved[name] = ("gradient", method)
            continue
        update, estimator = (
            method if isinstance(method, tuple) else ("gradient", method)
        )
        resolved[name] = (update, resolve_estimator(estimator, update))
    return resolved


def _checked_deltas(deltas: Sequence[float]) -> tuple[float, ...]:
    if isinstance(deltas, str | Tensor) or not isinstance(deltas, Sequence):
        raise TypeError(
            f"expected deltas to be a list or tuple of numbers, got "
            f"{type(deltas).__name__}"
        )
    return tuple(check_positive(delta, "every delta") for delta in deltas)


def _cells(record: MethodRecord) -> list[str]:
    found = record.fidelity
    figures = [
        found.cosine,
        found.norm_ratio,
        found.mean_cosine,
        found.mean_norm_ratio,
        *(descent.ratio for descent in record.descents),
    ]
    unknown = "nan" if math.isnan(found.cosine.value) else "-"
    cells = [
        unknown if math.isnan(item.value) else format(item, ".3g") for item in figures
    ]
    peak = record.peak_bytes
    cells.append(f"{record.seconds:.3g}")
    cells.append("-" if peak is None else f"{peak / 1e6:.3g}")
    return cells


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
