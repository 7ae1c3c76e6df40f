"""compare() says what is not finite, and leaves the user's model as it was."""

import types

import pytest
import torch
from torch import nn
from untouched import untouched

from l2l_evograd.checks import InputError
from l2l_evograd.oracle import compare, hypergradcheck
from l2l_evograd.oracle.fidelity import fidelity
from l2l_evograd.oracle.tolerance import quantities
from l2l_evograd.oracle.untouched import Untouched

X = torch.linspace(-1, 1, 12).view(4, 3)


def parts():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    lam = torch.zeros(4, requires_grad=True)

    def inner(view):
        return (lam.sigmoid() * view(X).square().sum(1)).mean()

    return model, inner, lambda view: view(X).mean() + view(X).square().mean(), lam


def gives(value, side_effect=lambda model: None):
    def method(inner, outer, model, hyperparameters, **options):
        side_effect(model)
        found = [torch.full_like(hyperparameters[0], value)]
        return types.SimpleNamespace(gradients=found, params={})

    return method


def moves(model):
    with torch.no_grad():
        model[0].weight.add_(1)


def leaves_a_grad(model):
    model[0].bias.grad = torch.ones(2)


def counts(model):
    model[1].running_mean.add_(1)


def freezes(model):
    model[0].weight.requires_grad_(False)


def run(method):
    model, inner, outer, lam = parts()
    with untouched(model, lam):
        return compare(
            model, inner, outer, [lam], lr=0.1, estimators={"mine": method},
            memory=False, repeats=1,
        )  # fmt: skip


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_method_whose_answer_is_no_number_has_no_cosine(value):
    with pytest.warns(UserWarning, match="by 'mine' is NaN or infinite in 1 of 1"):
        found = run(gives(value))
    assert found["mine"].fidelity.cosine.value != found["mine"].fidelity.cosine.value
    (column,) = [c for c in found.table().columns if c.header == "cosine"]
    assert list(column.cells)[-1] == "nan"


@pytest.mark.parametrize(
    ("side_effect", "words"),
    [
        (moves, "0.weight"),
        (leaves_a_grad, "0.bias.grad"),
        (counts, "1.running_mean"),
        (freezes, "0.weight.requires_grad"),
        (nn.Module.eval, "the training mode of Sequential"),
    ],
)
def test_a_method_that_changes_the_model_is_an_error_and_undone(side_effect, words):
    with pytest.raises(InputError, match=f"method 'mine' to leave .* changed {words}"):
        model, inner, outer, lam = parts()
        with untouched(model, lam):
            compare(
                model, inner, outer, [lam], lr=0.1, memory=False,
                estimators={"mine": gives(1.0, side_effect)},
            )  # fmt: skip


def test_a_loss_that_moves_the_weights_is_an_error():
    model, inner, outer, lam = parts()

    def moving(view):
        moves(model)
        return inner(view)

    before = model[0].weight.detach().clone()
    with pytest.raises(RuntimeError, match="the inner loss changed weights or hyperp"):
        hypergradcheck(moving, outer, model, lam, lr=0.1, rtol=1e3)
    assert torch.equal(model[0].weight, before)


def test_an_error_in_the_body_restores_everything():
    model, *_ = parts()
    watch = Untouched(model)
    before = model[0].weight.detach().clone()
    with pytest.raises(KeyError), watch.watch("it"):
        moves(model)
        raise KeyError
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize("of_draws", [1e-200, 1e-170, 1.0, 1e150])
@pytest.mark.parametrize("of_exact", [1e-200, 1.0, 1e200])
def test_figures_do_not_depend_on_the_scale(of_draws, of_exact):
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(5, generator=generator, dtype=torch.float64)
    draws = exact + torch.randn(40, 5, generator=generator, dtype=torch.float64)
    plain = fidelity(draws, exact, random=True)
    scaled = fidelity(of_draws * draws, of_exact * exact, random=True)
    for name in ("cosine", "mean_cosine"):
        one, other = getattr(plain, name), getattr(scaled, name)
        assert other.value == pytest.approx(one.value)
        assert other.error == pytest.approx(one.error)
    if of_draws <= of_exact:
        ratio = of_draws / of_exact
        expected = plain.norm_ratio.value * ratio
        assert scaled.norm_ratio.value == pytest.approx(expected, rel=1e-9, abs=0)


def test_the_noise_of_tiny_draws_is_not_0():
    draws = 1e-200 * torch.arange(40, dtype=torch.float64)[:, None]
    found = quantities(draws, 1e-200 * torch.ones(1).double(), torch.zeros(1), True)
    assert float(found.errors[0]) == pytest.approx(
        1e-200 * float(torch.arange(40.0).std()) / 40**0.5
    )
