"""Exact hypergradients: against formulas, differences and the core's own."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from naive import algorithm_one
from problems import (
    PROBLEMS,
    Problem,
    hyperparameters_inside,
    quadratic,
    smooth_mlp,
    unrolled,
)
from torch import Tensor, nn
from torch.nn import functional as F
from untouched import untouched

from l2l_evograd import EvoGrad, Exact
from l2l_evograd.bilevel import hypergradient
from l2l_evograd.oracle.exact import (
    by_double_backward,
    exact_hypergradient,
    through_evolution,
    through_higher,
)
from l2l_evograd.oracle.unrolled import Unrolled
from l2l_evograd.replay.call_state import preserved_random_state

CPU = torch.device("cpu")


def exact(problem: Problem, **settings: Any) -> list[Tensor]:
    return exact_hypergradient(
        problem.model,
        problem.inner_loss,
        problem.outer_loss,
        problem.hyperparameters,
        problem.lr,
        **settings,
    )


@pytest.mark.parametrize("name", ["quadratic", "quadratic_with_direct_term"])
def test_the_oracle_equals_the_closed_form(name: str) -> None:
    problem = PROBLEMS[name]()
    assert problem.exact is not None
    for found, wanted in zip(exact(problem), problem.exact, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=0)


# relu_mlp has kinks between the ends of the difference, and weight_net detaches what
# its weights are computed from, which hides what that owes to λ through earlier steps.
@pytest.mark.parametrize(
    ("name", "steps"),
    [
        (name, steps)
        for name in PROBLEMS
        for steps in (1, 3)
        if name != "relu_mlp" and (name, steps) != ("weight_net", 3)
    ],
)
def test_the_oracle_equals_differences_of_the_outer_loss(name: str, steps: int) -> None:
    problem = PROBLEMS[name]()
    found = exact(problem, steps=steps)
    ground = unrolled(problem, steps)
    generator = torch.Generator().manual_seed(0)
    along = [
        torch.randn(t.shape, generator=generator, dtype=t.dtype)
        for t in problem.hyperparameters
    ]
    width, ends = 1e-4, []
    for sign in (1, -1):
        with ground.moved(along, -sign * width):
            ends.append(ground.outer_value())
    slope = sum(float((a * g).sum()) for a, g in zip(along, found, strict=True))
    # Central differences: error of order 1e-8 from the step, 1e-12 from rounding.
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * width), rel=1e-5)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", PROBLEMS)
def test_double_backward_equals_higher(name: str, steps: int) -> None:
    problem = PROBLEMS[name]()
    ground = unrolled(problem, steps)
    with untouched(problem.model, *problem.hyperparameters):
        found = by_double_backward(ground)
    for ours, theirs in zip(found, through_higher(ground), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_the_evolution_equals_algorithm_one_line_by_line(noise: str) -> None:
    problem, lam = quadratic(), torch.tensor([0.3, -1.2], dtype=torch.float64)
    lam.requires_grad_()
    ground = Unrolled(
        problem.model,
        lambda view: inner([view()], lam),
        lambda view: outer([view()]),
        lam,
        0.1,
    )

    def inner(weights: list[Tensor], chosen: Tensor) -> Tensor:
        return (chosen[0] * weights[0]).sin().sum() * chosen[1].exp()

    def outer(weights: list[Tensor]) -> Tensor:
        return weights[0].square().sum()

    estimator = EvoGrad(5, sigma=0.1, temperature=0.5, noise=noise)
    with untouched(problem.model, lam):
        found = through_evolution(ground, estimator, seeds=[7])
    noises = estimator.perturbations(list(problem.model.parameters()), 7)
    wanted, *_ = algorithm_one(
        inner,
        outer,
        list(problem.model.parameters()),
        lam,
        [noises.draw(k) for k in range(5)],
        0.5,
    )
    torch.testing.assert_close(found[0], wanted, rtol=1e-10, atol=0)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_exact_estimator_equals_the_oracle(name: str, steps: int) -> None:
    problem = PROBLEMS[name]()
    wanted = exact(problem, steps=steps)
    with preserved_random_state([CPU]):
        found = hypergradient(
            problem.inner_loss,
            problem.outer_loss,
            problem.model,
            problem.hyperparameters,
            lr=problem.lr,
            estimator=Exact(),
            steps=steps,
        )
    for ours, theirs in zip(found.gradients, wanted, strict=True):
        scale = float(theirs.abs().max())
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10 * scale)
    value = unrolled(problem, steps).outer_value()
    assert value == pytest.approx(float(found.outer_loss), rel=1e-12)


@pytest.mark.parametrize("name", PROBLEMS)
def test_everything_is_bitwise_as_before(name: str) -> None:
    problem = PROBLEMS[name]()
    first = next(problem.model.parameters())
    first.grad = torch.full_like(first, 3.0)
    ground = unrolled(problem, steps=2)
    with untouched(problem.model, *problem.hyperparameters):
        once = through_higher(ground)
        ground.outer_value()
        again = through_higher(ground)
    for a, b in zip(once, again, strict=True):
        assert torch.equal(a, b)
        assert not a.requires_grad


def test_the_random_state_that_is_found_decides() -> None:
    problem = PROBLEMS["batch_norm_and_dropout"]()
    once = exact(problem)
    with preserved_random_state([CPU]):
        torch.rand(1)
        other = exact(problem)
    assert not torch.equal(once[0], other[0])


def test_hyperparameters_may_be_named_in_every_way() -> None:
    problem = hyperparameters_inside()
    scale, spread = problem.hyperparameters
    losses = (problem.inner_loss, problem.outer_loss)
    wanted = exact(problem)
    for named in (["scale", "spread"], {"a": scale, "b": spread}, (scale, "spread")):
        found = exact_hypergradient(problem.model, *losses, named, problem.lr)
        for ours, theirs in zip(found, wanted, strict=True):
            assert torch.equal(ours, theirs)
    # Named alone, the other one belongs to the weights and takes part in the steps.
    alone = exact_hypergradient(problem.model, *losses, scale, problem.lr, steps=2)
    assert len(alone) == 1
    assert not torch.equal(alone[0], exact(problem, steps=2)[0])


def test_a_module_of_hyperparameters_counts_as_its_parameters() -> None:
    problem = PROBLEMS["weight_net"]()
    weigher = nn.ParameterList(problem.hyperparameters)
    found = exact_hypergradient(
        problem.model, problem.inner_loss, problem.outer_loss, weigher, problem.lr
    )
    for ours, theirs in zip(found, exact(problem), strict=True):
        assert torch.equal(ours, theirs)


def test_frozen_weights_stay_and_are_left_alone() -> None:
    problem = smooth_mlp()
    last = list(problem.model.parameters())[-1]
    whole = exact(problem)
    last.requires_grad_(False)
    with untouched(problem.model):
        part = exact(problem)
    assert last.grad is None
    assert not torch.equal(whole[0], part[0])


def test_tied_weights_move_together() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4, bias=False)
            self.second = nn.Linear(4, 4, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.tanh(self.first(x)))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x = Tied().double(), torch.randn(5, 4, dtype=torch.float64)
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def inner_loss(view: nn.Module) -> Tensor:
        return (view(x) - scale).square().mean()

    def outer_loss(view: nn.Module) -> Tensor:
        return view(x).square().mean()

    problem = Problem("tied", model, inner_loss, outer_loss, [scale], 0.3)
    ground, ends = unrolled(problem), []
    for sign in (1, -1):
        with ground.moved([torch.ones_like(scale)], -sign * 1e-4):
            ends.append(ground.outer_value())
    slope = (ends[0] - ends[1]) / 2e-4
    assert float(exact(problem)[0]) == pytest.approx(slope, rel=1e-6)


def attention(heads: int) -> Problem:
    """Attention whose fused kernels have no second derivative."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Linear(8, 24).double()
        x = torch.randn(2, 5, 8, dtype=torch.float64)
    weights = torch.zeros(5, dtype=torch.float64, requires_grad=True)

    def loss(view: nn.Module) -> Tensor:
        parts = view(x).view(2, 5, 3, heads, 8 // heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).square().mean(dim=(0, 1, 3))

    def inner_loss(view: nn.Module) -> Tensor:
        return (torch.sigmoid(weights) * loss(view)).sum()

    def outer_loss(view: nn.Module) -> Tensor:
        return (1 - loss(view)).square().sum()

    return Problem("attention", model, inner_loss, outer_loss, [weights], 0.1)


def test_attention_is_differentiated_twice() -> None:
    problem = attention(heads=2)
    wanted = exact(problem)
    ground, ends = unrolled(problem), []
    for sign in (1, -1):
        with ground.moved(wanted, -sign * 1e-3):
            ends.append(ground.outer_value())
    slope = (ends[0] - ends[1]) / 2e-3
    assert float(wanted[0].square().sum()) == pytest.approx(slope, rel=1e-5)
    found = hypergradient(
        problem.inner_loss,
        problem.outer_loss,
        problem.model,
        problem.hyperparameters,
        lr=problem.lr,
        estimator="exact",
    )
    torch.testing.assert_close(found.gradients[0], wanted[0], rtol=1e-8, atol=1e-14)


def test_recurrent_layers_run_without_cudnn_and_the_flag_comes_back() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)[0]

    seen: list[bool] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x = Recurrent().double(), torch.randn(2, 5, 3, dtype=torch.float64)
    weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)

    def inner_loss(view: nn.Module) -> Tensor:
        seen.append(torch.backends.cudnn.enabled)
        losses = view(x).square().mean(dim=(1, 2))
        return (torch.sigmoid(weights) * losses).sum()

    def outer_loss(view: nn.Module) -> Tensor:
        return (view(x) - 1).square().mean()

    before = torch.backends.cudnn.enabled
    found = exact_hypergradient(model, inner_loss, outer_loss, weights, 0.1)
    assert seen == [False]
    assert torch.backends.cudnn.enabled == before
    assert float(found[0].abs().max()) > 0


def test_running_statistics_saved_by_the_inner_loss_stay_as_they_were() -> None:
    base = PROBLEMS["batch_norm_and_dropout"]()

    def inner_loss(view: nn.Module) -> Tensor:
        view.eval()
        return base.inner_loss(view)

    def outer_loss(view: nn.Module) -> Tensor:
        view.train()  # writes to the statistics that the inner loss used
        return base.outer_loss(view)

    problem = replace(base, inner_loss=inner_loss, outer_loss=outer_loss)
    found = exact(problem)[1]
    ground, ends = unrolled(problem), []
    along = [torch.zeros(2, dtype=torch.float64), torch.ones_like(found)]
    for sign in (1, -1):
        with ground.moved(along, -sign * 1e-4):
            ends.append(ground.outer_value())
    assert float(found.sum()) == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-6)
