"""Comparisons of estimators: sane figures, an untouched state, clear refusals."""

import dataclasses
import io
import json
import math
from typing import Any

import pytest
import torch
from problems import (
    PROBLEMS,
    Problem,
    hyperparameters_inside,
    quadratic,
    smooth_mlp,
)
from rich.console import Console
from torch import Tensor, nn
from untouched import untouched

from l2l_evograd import EvoGrad, Exact, Guided
from l2l_evograd.oracle.comparison import Comparison, compare
from l2l_evograd.unroll import forward_mode, greedy, unrolled_sgd


def compared(problem: Problem, **settings: Any) -> Comparison:
    settings = {"draws": 3, "repeats": 1, "memory": False, "lr": problem.lr, **settings}
    return compare(
        problem.model,
        problem.inner_loss,
        problem.outer_loss,
        problem.hyperparameters,
        **settings,
    )


def without_cost(comparison: Comparison) -> list[Any]:
    return [dataclasses.replace(record, seconds=0.0) for record in comparison.records]


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_exact_estimator_is_like_the_reference(name: str) -> None:
    found = compared(PROBLEMS[name](), estimators={"exact": Exact(), "named": "exact"})
    for record in (found.reference, *found.records):
        for figure in (
            record.fidelity.cosine,
            record.fidelity.norm_ratio,
            record.fidelity.projection,
            record.fidelity.mean_cosine,
            record.fidelity.mean_norm_ratio,
            *(descent.ratio for descent in record.descents),
        ):
            assert figure.value == pytest.approx(1, rel=1e-7)
            assert figure.error == 0
        assert record.fidelity.bias < 1e-8
        assert record.fidelity.noise == 0
        assert record.draws == 1
        assert record.scale == 1
        assert record.seconds > 0


@pytest.mark.parametrize(
    "name", ["smooth_mlp", "hyperparameters_inside", "batch_norm_and_dropout"]
)
def test_guided_is_near_the_exact_answer_on_smooth_networks(name: str) -> None:
    found = compared(
        PROBLEMS[name](),
        estimators={"central": Guided(scheme="central"), "forward": "guided"},
    )
    for record in found.records:
        assert record.fidelity.cosine.value > 0.9999
        assert record.fidelity.norm_ratio.value == pytest.approx(1, abs=0.01)
        for descent in record.descents:
            assert descent.ratio.value == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("candidates", [2, 4])
def test_the_mean_of_evograd_approaches_the_exact_answer(candidates: int) -> None:
    # 400 draws, chosen beforehand: with a noise near 0.8 that finds a bias of 16 %,
    # and a factor K/(K-1) too much or too little is 100 % or 33 %.
    draws = 400
    estimator = EvoGrad(n_model_candidates=candidates)
    found = compared(
        hyperparameters_inside(),
        estimators={"evograd": estimator},
        draws=draws,
        deltas=(),
    )["evograd"]
    near = found.fidelity
    assert found.draws == draws
    assert abs(near.projection.value - 1) <= 4 * near.projection.error
    # Noise that is left in the mean lengthens it and turns it away.
    longer = math.sqrt(1 + near.noise**2 / draws)
    ratio, cosine = near.mean_norm_ratio, near.mean_cosine
    assert abs(ratio.value - longer) <= 4 * ratio.error
    assert abs(cosine.value - 1 / longer) <= 4 * cosine.error
    assert near.cosine.value < cosine.value


def test_evolution_is_scaled_to_the_learning_rate() -> None:
    # A small lr, so that θ* and θ' are near each other.
    found = compared(
        hyperparameters_inside(),
        lr=1e-4,
        estimators={"paper": ("evolution", None), "wide": ("evolution", EvoGrad(4))},
        draws=400,
        deltas=(),
    )
    assert found["paper"].scale == pytest.approx(1e-4 / 1e-5)
    assert found["wide"].scale == pytest.approx(1e-4 / 1.5e-5)
    for record in found.records:
        assert record.update == "evolution"
        near = record.fidelity.projection
        assert abs(near.value - 1) <= 4 * near.error


def test_realised_descent_is_the_change_of_the_outer_loss_itself() -> None:
    problem = smooth_mlp()
    (logits,) = problem.hyperparameters
    found = compared(problem, estimators={"exact": "exact"}, deltas=(0.03, 2.0))

    def outer_at(values: Tensor) -> float:
        moved = smooth_mlp()
        with torch.no_grad():
            moved.hyperparameters[0].copy_(values)
        parameters = list(moved.model.parameters())
        slopes = torch.autograd.grad(moved.inner_loss(moved.model), parameters)
        with torch.no_grad():
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter.sub_(slope, alpha=moved.lr)
            return float(moved.outer_loss(moved.model))

    start = outer_at(logits.detach())
    assert found.outer_loss == pytest.approx(start, rel=1e-12)
    direction = found.exact[0] / found.exact[0].norm()
    for descent in found["exact"].descents:
        drop = start - outer_at(logits.detach() - descent.delta * direction)
        assert descent.drop.value == pytest.approx(drop, rel=1e-9)
        assert drop > 0


def test_a_direction_that_does_not_descend_gives_no_ratio() -> None:
    found = compared(quadratic(), estimators={"exact": "exact"}, deltas=(1000.0,))
    (descent,) = found["exact"].descents
    assert descent.drop.value < 0
    assert math.isnan(descent.ratio.value)
    console = Console(file=io.StringIO(), width=120)
    found.print(console)


@pytest.mark.parametrize("name", PROBLEMS)
def test_everything_is_bitwise_as_before(name: str) -> None:
    problem = PROBLEMS[name]()
    for tensor in problem.hyperparameters:
        tensor.grad = torch.full_like(tensor, 2.0)
    with untouched(problem.model, *problem.hyperparameters):
        compared(problem, steps=2)


@pytest.mark.parametrize("fails_at", [1, 2, 4, 6, 8, 11])
def test_everything_is_as_before_after_an_exception(fails_at: int) -> None:
    problem, calls = smooth_mlp(), 0

    def outer_loss(view: nn.Module) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise KeyError("mine")
        return problem.outer_loss(view)

    broken = dataclasses.replace(problem, outer_loss=outer_loss)
    with untouched(problem.model, *problem.hyperparameters):
        with pytest.raises(KeyError, match="mine"):
            compared(broken, memory=True, draws=1)
    compared(problem, memory=True, estimators={"exact": "exact"})  # nothing is held


def test_the_seed_decides_and_each_method_starts_from_it() -> None:
    methods = {"a": "evograd", "b": EvoGrad(), "paper": ("evolution", "evograd")}
    once = compared(smooth_mlp(), estimators=methods, seed=3)
    again = compared(smooth_mlp(), estimators=methods, seed=3)
    assert without_cost(once) == without_cost(again)
    assert once["a"].fidelity == once["b"].fidelity
    other = compared(smooth_mlp(), estimators=methods, seed=4)
    assert once["a"].fidelity != other["a"].fidelity
    alone = compared(smooth_mlp(), estimators={"paper": methods["paper"]}, seed=3)
    assert without_cost(alone) == without_cost(once)[2:]


def test_the_usual_methods_are_compared_by_default() -> None:
    found = compared(smooth_mlp())
    assert [record.method for record in found.records] == [
        "exact",
        "guided-central",
        "guided-forward",
        "evograd",
        "evograd-paper",
    ]
    assert [record.draws for record in found.records] == [1, 1, 1, 3, 3]
    assert found["evograd-paper"].update == "evolution"
    assert found["evograd-paper"].estimator.startswith("EvoGrad(n_model_candidates=2")
    assert found.weights == 75
    assert found.hyperparameters == 12


def test_single_precision_is_compared_too() -> None:
    problem = smooth_mlp()
    model = problem.model.float()
    logits = torch.zeros(12, requires_grad=True)

    def inner_loss(view: nn.Module) -> Tensor:
        x = torch.linspace(-1, 1, 60).view(12, 5)
        return (torch.sigmoid(logits) * view(x).square().sum(dim=1)).mean()

    def outer_loss(view: nn.Module) -> Tensor:
        return view(torch.ones(2, 5)).square().mean()

    found = compare(
        model, inner_loss, outer_loss, logits, lr=0.1, draws=2, memory=False
    )
    assert found["exact"].fidelity.cosine.value == pytest.approx(1, abs=1e-6)
    assert found["guided-central"].fidelity.cosine.value > 0.999


def test_memory_and_time_are_measured() -> None:
    size = 1_000_000

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(size, dtype=torch.float64))

        def forward(self) -> Tensor:
            return self.weight

    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    def inner_loss(view: nn.Module) -> Tensor:
        return scale * view().square().mean()

    def outer_loss(view: nn.Module) -> Tensor:
        return view().square().mean()

    found = compare(
        Wide(),
        inner_loss,
        outer_loss,
        scale,
        lr=0.1,
        estimators={"guided": "guided"},
        repeats=1,
    )
    for record in (found.reference, *found.records):
        # At least the new weights and a gradient, 8 MB each.
        assert record.peak_bytes is not None
        assert 16e6 <= record.peak_bytes <= 400e6
        assert record.seconds > 0


def test_the_table_and_the_print_show_every_method(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = compared(smooth_mlp(), memory=True)
    table = found.table()
    assert table.row_count == 6
    file = io.StringIO()
    found.print(Console(file=file, width=120))
    text = file.getvalue()
    for word in ("higher", "guided-forward", "evograd-paper", "δ = 0.3", "±", "lr/η"):
        assert word in text
    found.print()
    assert "evograd-paper" in capsys.readouterr().out


def test_a_table_without_random_methods_speaks_of_no_draws() -> None:
    found = compared(smooth_mlp(), estimators={"exact": "exact"}, steps=2)
    assert "draws" not in str(found.table().caption)
    assert "2 inner steps" in str(found.table().title)


def test_records_are_ready_for_json() -> None:
    found = compared(smooth_mlp(), draws=1)
    text = json.dumps(found.to_dicts(), allow_nan=False)
    first, *_, last = json.loads(text)
    assert first["method"] == "higher"
    assert first["peak_bytes"] is None
    assert last["fidelity"]["cosine"]["error"] is None
    assert last["descents"][1]["delta"] == 0.3


def test_functions_with_the_interface_of_hypergradient_can_be_compared() -> None:
    problem = smooth_mlp()
    functions = {"forward": forward_mode, "unrolled": unrolled_sgd, "greedy": greedy}
    found = compared(problem, estimators=functions, steps=3)
    for name in ("forward", "unrolled"):
        assert found[name].fidelity.cosine.value == pytest.approx(1, rel=1e-7)
        assert found[name].fidelity.norm_ratio.value == pytest.approx(1, rel=1e-7)
        assert found[name].draws == 1
    assert found["greedy"].fidelity.cosine.value < 1 - 1e-6
