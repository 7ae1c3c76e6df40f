"""What a step of bilevel training computes, without stepping."""

import copy

import pytest
import torch
from online import (
    X,
    Y,
    by_hand,
    network,
    outer,
    weight_net,
    weighted,
)
from torch.nn import functional as F

from l2l_evograd import Exact, Guided, bilevel_step
from l2l_evograd.bilevel import bilevel_gradients

pytestmark = pytest.mark.usefixtures("float64")


# Before, the population would surround the weights after the base step.
@pytest.mark.parametrize(
    ("settings", "base_step"),
    [
        ({"estimator": "exact"}, "after"),
        ({"estimator": "exact"}, "before"),
        ({}, "after"),
        ({}, "before"),
        ({"update": "evolution"}, "after"),
    ],
    ids=str,
)
def test_gradients_applied_by_hand_are_a_bilevel_step(settings, base_step):
    model, hyper = network(), weight_net()
    twin, hyper_twin = copy.deepcopy((model, hyper))
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    hyper_opt = torch.optim.SGD(hyper.parameters(), lr=5.0)
    torch.manual_seed(3)
    expected = bilevel_step(
        model, weighted(hyper), outer, opt, hyper_opt, base_step=base_step, **settings
    )
    end = torch.get_rng_state()
    torch.manual_seed(3)
    found = bilevel_gradients(
        twin,
        weighted(hyper_twin),
        outer,
        hyperparameters=hyper_twin,
        lr=0.1,
        keep=base_step == "after",
        **settings,
    )
    assert torch.equal(found.inner_loss, expected.inner_loss)
    assert torch.equal(found.outer_loss, expected.outer_loss)
    with torch.no_grad():
        for lam, grad in zip(hyper_twin.parameters(), found.hypergradient, strict=True):
            lam -= 5.0 * grad
    gradients = found.gradients
    if base_step == "after":
        gradients, _ = found.at_present()
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter -= 0.1 * gradients[name]
    assert torch.equal(end, torch.get_rng_state())
    for a, b in zip(
        [*model.state_dict().values(), *hyper.parameters()],
        [*twin.state_dict().values(), *hyper_twin.parameters()],
        strict=True,
    ):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


def test_nothing_is_stepped_and_no_gradient_is_filled():
    model, hyper = network(), weight_net()
    tensors = [*model.parameters(), *hyper.parameters()]
    before = [t.detach().clone() for t in tensors]
    bilevel_gradients(model, weighted(hyper), outer, hyperparameters=hyper, lr=0.1)
    assert all(map(torch.equal, before, tensors))
    assert all(t.grad is None for t in tensors)


@pytest.mark.parametrize("estimator", [Exact(), Guided(h=1e-4)])
def test_hypergradient_gradients_and_losses_are_those_written_out(estimator):
    model, hyper = network(), weight_net()
    inner = weighted(hyper)
    value, query, grads, slopes = by_hand(model, list(hyper.parameters()), inner, 3)
    torch.manual_seed(3)
    found = bilevel_gradients(
        model, inner, outer, hyperparameters=hyper, lr=0.1, estimator=estimator
    )
    assert float(found.inner_loss) == pytest.approx(float(value), rel=1e-12)
    assert float(found.outer_loss) == pytest.approx(float(query), rel=1e-12)
    assert list(found.gradients) == [name for name, _ in model.named_parameters()]
    rtol = 1e-8 if estimator.exact else 1e-4
    for a, b in zip(found.hypergradient, grads, strict=True):
        assert torch.allclose(a, b, rtol=rtol, atol=1e-9 if rtol > 1e-8 else 1e-14)
    for a, b in zip(found.gradients.values(), slopes, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


def test_other_tensors_are_differentiated_too():
    model, lam = network().eval(), torch.zeros(10, requires_grad=True)
    scale = torch.ones((), requires_grad=True)
    unused = torch.ones((), requires_grad=True)

    def inner(view):
        losses = F.cross_entropy(scale * view(X), Y, reduction="none")
        return (torch.sigmoid(lam) * losses).mean()

    found = bilevel_gradients(
        model,
        inner,
        outer,
        hyperparameters=lam,
        lr=0.1,
        also=[scale, unused],
        keep=True,
    )
    (expected,) = torch.autograd.grad(inner(model), scale)
    assert torch.allclose(found.extras[0], expected, rtol=1e-12)
    assert found.extras[1] is None
    with torch.no_grad():
        lam += 1.0
    _, extras = found.at_present()
    (expected,) = torch.autograd.grad(inner(model), scale)
    assert torch.allclose(extras[0], expected, rtol=1e-12) and extras[1] is None


NORMALISED = {
    "as they are": lambda weights: weights,
    "by a detached sum": lambda weights: weights / weights.detach().sum(),
    "by a number": lambda weights: weights / weights.detach().sum().item(),
    "by a list of numbers": lambda weights: weights / sum(weights.tolist()),
    "by a sum without gradients": lambda weights: weights / silent_sum(weights),
    "by a choice": lambda weights: weights * (2 if bool(weights[0] > 0.6) else 1),
}


def silent_sum(weights):
    with torch.no_grad():
        return weights.sum()


@pytest.mark.parametrize("how", NORMALISED)
def test_gradients_at_present_are_those_of_the_loss_called_again(how):
    model, lam = network().eval(), torch.zeros(10, requires_grad=True)
    calls = []

    def inner(view):
        calls.append(1)
        losses = F.cross_entropy(view(X), Y, reduction="none")
        return (NORMALISED[how](torch.sigmoid(lam)) * losses).mean()

    found = bilevel_gradients(
        model, inner, outer, hyperparameters=lam, lr=0.1, keep=True
    )
    with torch.no_grad():
        lam += torch.linspace(1, 2, 10)
    gradients, _ = found.at_present()
    # Numbers that left on the way are computed anew by calling the loss again.
    assert len(calls) == (1 if how == "as they are" else 2)
    expected = torch.autograd.grad(inner(model), list(model.parameters()))
    for a, b in zip(gradients.values(), expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-14)


def test_algorithm_1_may_move_the_weights_before_it_draws_its_population():
    model, hyper = network(), weight_net()
    twin, hyper_twin = copy.deepcopy((model, hyper))
    start = copy.deepcopy(model)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    hyper_opt = torch.optim.SGD(hyper.parameters(), lr=5.0)
    torch.manual_seed(3)
    expected = bilevel_step(
        model,
        weighted(hyper),
        outer,
        opt,
        hyper_opt,
        update="evolution",
        base_step="before",
    )
    calls = []

    def move(gradients, extras):
        calls.append(extras)
        with torch.no_grad():
            for name, weight in twin.named_parameters():
                weight -= 0.1 * gradients[name]

    torch.manual_seed(3)
    found = bilevel_gradients(
        twin,
        weighted(hyper_twin),
        outer,
        hyperparameters=hyper_twin,
        lr=0.1,
        update="evolution",
        move=move,
    )
    assert calls == [[]]
    torch.manual_seed(3)  # of dropout
    own = torch.autograd.grad(
        weighted(copy.deepcopy(hyper_twin))(start), list(start.parameters())
    )
    for gradient, autograd in zip(found.gradients.values(), own, strict=True):
        torch.testing.assert_close(gradient, autograd, rtol=1e-12, atol=1e-14)
    for one, other in zip(found.hypergradient, expected.hypergradient, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-16)
    for one, other in zip(twin.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
