"""What is said of a hypergradient that is not the exact one."""

import dataclasses
import sys
from typing import Any

import pytest
import torch
from problems import Problem, hyperparameters_inside, quadratic, smooth_mlp
from torch import Tensor, nn

from l2l_evograd import EvoGrad, Exact, Guided, Hypergradient, hypergradcheck
from l2l_evograd.bilevel import hypergradient
from l2l_evograd.oracle import HypergradcheckError, verification


def said(problem: Problem, **settings: Any) -> str:
    with pytest.raises(HypergradcheckError) as raised:
        hypergradcheck(
            problem.inner_loss,
            problem.outer_loss,
            problem.model,
            problem.hyperparameters,
            **{"lr": problem.lr, **settings},
        )
    return str(raised.value)


def moved(monkeypatch: pytest.MonkeyPatch, number: int, place: tuple[int, ...]) -> None:
    """Add 0.25 to one entry of the estimate."""

    def wrong(*args: Any, **settings: Any) -> Hypergradient:
        found = hypergradient(*args, **settings)
        found.gradients[number][place] += 0.25
        return found

    monkeypatch.setattr(verification, "hypergradient", wrong)


def test_the_worst_entry_is_named_with_all_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = quadratic()
    moved(monkeypatch, 0, (2,))
    text = said(problem, estimator=Exact())
    assert problem.exact is not None
    wanted = float(problem.exact[0][2])
    assert (
        "by Exact(mode='auto') differs from the exact one, with update='gradient'"
        in text
    )
    assert "lr=0.1 and 1 inner step." in text
    assert "The worst is entry [2] of hyperparameter 0, of shape (3,):" in text
    assert f"expected {wanted:.10g}, from higher" in text
    assert f"found    {wanted + 0.25:.10g}\n" in text
    assert "error    0.25\n" in text
    largest = float(problem.exact[0].abs().max())
    assert f"allowed  {1.001e-7 * largest:.3g} = atol + rtol * largest" in text
    assert "1 of 3 comparisons failed." in text


def test_hyperparameters_inside_the_model_go_by_their_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved(monkeypatch, 1, (4,))
    text = said(hyperparameters_inside(), estimator=Exact(), steps=2)
    assert "The worst is entry [4] of spread, of shape (6,):" in text
    assert "2 inner steps." in text


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_entries_of_all_shapes_are_found(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    base = quadratic()
    scale = torch.ones(shape, dtype=torch.float64, requires_grad=True)

    def inner_loss(view: nn.Module) -> Tensor:
        return scale.square().sum() * view().square().sum()

    named = [base.hyperparameters[0], scale]
    problem = dataclasses.replace(base, inner_loss=inner_loss, hyperparameters=named)
    place = tuple(size - 1 for size in shape)
    moved(monkeypatch, 1, place)
    text = said(problem, estimator=Exact(), allow_unused=True)
    entry = "entry [1, 2] of " if shape else ""
    assert f"The worst is {entry}hyperparameter 1, of shape {shape}:" in text


def test_the_source_of_the_exact_answer_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved(monkeypatch, 0, (0,))
    text = said(smooth_mlp(), update="evolution")
    assert "from autograd through Algorithm 1 at the same perturbations" in text
    assert "lr=" not in text
    monkeypatch.setitem(sys.modules, "higher", None)
    assert "from double backward" in said(smooth_mlp(), estimator=Exact())


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("estimator", [Exact(), Guided()])
def test_a_loss_that_changes_from_call_to_call_is_found_out(
    monkeypatch: pytest.MonkeyPatch, estimator: Any, higher: bool
) -> None:
    if not higher:
        monkeypatch.setitem(sys.modules, "higher", None)
    problem, calls = smooth_mlp(), 0

    def inner_loss(view: nn.Module) -> Tensor:
        nonlocal calls
        calls += 1
        return problem.inner_loss(view) * calls

    text = said(
        dataclasses.replace(problem, inner_loss=inner_loss), estimator=estimator
    )
    assert "a loss reads something that changes from call to call" in text
    assert "Read it once, before the check" in text


def test_an_estimate_that_is_too_coarse_is_told_from_a_wrong_loss() -> None:
    text = said(smooth_mlp(), estimator=Guided(h=3.0), rtol=1e-3)
    assert "Exact() agrees, so the losses are correct." in text
    assert "curvature within h, make h smaller" in text
    text = said(smooth_mlp(), estimator=EvoGrad(64, sigma=2.0), draws=100, rtol=1e-3)
    assert "Exact() agrees, so the losses are correct." in text
    assert "use a smaller sigma" in text


def test_where_exact_is_wrong_as_well_the_loss_is_suspected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved(monkeypatch, 0, (0,))
    for estimator in (Exact(), Guided()):
        text = said(smooth_mlp(), estimator=estimator)
        assert "A loss is not a function of only λ and the module" in text


def test_figures_of_random_estimates_come_with_their_errors() -> None:
    text = said(smooth_mlp(), estimator=EvoGrad(64, sigma=2.0), draws=100, rtol=1e-3)
    assert ", the mean of 100 draws\n" in text
    assert "+ 4 standard errors of" in text
    assert "of 13 comparisons failed." in text


def test_the_projection_is_compared_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def longer(*args: Any, **settings: Any) -> Hypergradient:
        found = hypergradient(*args, **settings)
        return found._replace(gradients=[4 * part for part in found.gradients])

    monkeypatch.setattr(verification, "hypergradient", longer)
    text = said(smooth_mlp(), estimator=EvoGrad(8), draws=100, seed=3)
    assert "the projection of the estimate on the direction of the exact answer" in text
