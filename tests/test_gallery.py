"""The problems of ``examples/gallery``: their known answers, training and pictures."""

import dataclasses
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from examples.gallery import (
    augmentation_strength,
    class_weights,
    loss_weights,
    weight_decay,
)
from examples.gallery.gallery import METHODS, Problem
from examples.gallery.report import distance, main

MODULES = (loss_weights, weight_decay, class_weights, augmentation_strength)
every_problem = pytest.mark.parametrize(
    "problem", [m.PROBLEM for m in MODULES], ids=lambda problem: problem.name
)


def minimised(loss, start: Tensor) -> Tensor:
    """Return the minimum of ``loss`` near ``start`` by LBFGS, in double precision."""
    value = start.double().clone().requires_grad_()
    search = torch.optim.LBFGS(
        [value], max_iter=300, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
    )

    def closure():
        search.zero_grad()
        result = loss(value)
        result.backward()
        return result

    search.step(closure)
    return value.detach()


@every_problem
@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_finite_figures(problem: Problem, method: str) -> None:
    run = problem.train(method, seed=1, iterations=3)
    assert run.iterations == 3 and len(run.curve) == 4
    assert math.isfinite(run.quality) and run.seconds_per_iteration > 0
    # Without decay the log decays are −∞.
    if method != "none":
        assert all(math.isfinite(value) for value in run.hyperparameters)
    moved = run.curve[0] != run.curve[-1]
    assert moved == (method not in ("none", "known"))


@every_problem
@pytest.mark.parametrize("method", ["guided", "exact"])
def test_lambda_moves_towards_the_known_answer(problem: Problem, method: str) -> None:
    run = problem.train(method, seed=1, iterations=80)
    before = dataclasses.replace(run, hyperparameters=run.curve[0])
    assert distance(problem, run) < 0.7 * distance(problem, before)


@every_problem
@pytest.mark.parametrize("method", ["evograd", "exact"])
def test_the_same_seed_gives_the_same_run(problem: Problem, method: str) -> None:
    first, second, other = (problem.train(method, s, 3) for s in (1, 1, 2))
    assert first.curve == second.curve and first.quality == second.quality
    assert first.curve != other.curve


@every_problem
def test_the_known_answer_is_among_the_fixed_ones(problem: Problem) -> None:
    assert problem.methods == METHODS
    assert problem.train("known", iterations=1).hyperparameters == problem.known
    assert len(problem.known) == len(problem.labels) == len(problem.start)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__.split(".")[-1])
def test_scripts_are_short_and_say_what_they_do(module: ModuleType) -> None:
    assert len(Path(module.__file__).read_text(encoding="utf-8").splitlines()) <= 110
    for part in ("Known:", "Shows:", "Prints:", "Time:"):
        assert f"\n{part} " in module.__doc__
    assert f"python -m {module.__name__}\n" in module.__doc__


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__.split(".")[-1])
def test_the_command_prints_a_table_and_writes_a_picture(
    module: ModuleType, tmp_path, capsys
) -> None:
    picture = tmp_path / "new" / "picture.png"
    given = ["--iterations", "2", "--seeds", "2", "--picture", str(picture)]
    runs = main(module.PROBLEM, given)
    assert all(len(found) == 2 for found in runs.values())
    assert picture.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert all(method in printed for method in METHODS)


def test_loss_weights_known_is_the_minimum_of_the_variance() -> None:
    """E‖θ − θ*‖² of weighted least squares, for the inputs of one draw."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 200, 10, generator=generator, dtype=torch.float64)
    moments = x.mT @ x / x.shape[1]
    variances = loss_weights.SIGMAS.double().square()

    def error(strength: Tensor) -> Tensor:
        weights = strength.softmax(dim=0)[:, None, None]
        middle = (weights.square() * variances[:, None, None] * moments).sum(dim=0)
        inverse = torch.linalg.inv((weights * moments).sum(dim=0))
        return (inverse @ middle @ inverse).trace().log()

    found = minimised(error, loss_weights.PROBLEM.start).log_softmax(dim=0)
    known = torch.tensor(loss_weights.PROBLEM.known, dtype=torch.float64)
    torch.testing.assert_close(found, known, atol=1e-4, rtol=0)


def _decay_problem() -> tuple[Tensor, Tensor, Tensor]:
    """Return XᵀX / n, the true variances of the weights, and those of the noise."""
    generator = torch.Generator().manual_seed(0)
    size = (weight_decay.TRAIN, weight_decay.FEATURES)
    x = torch.randn(size, generator=generator, dtype=torch.float64)
    prior = weight_decay.TAUS.double().square().repeat_interleave(weight_decay.GROUP)
    return x.T @ x / len(x), prior, weight_decay.NOISE**2 / len(x)


@pytest.mark.parametrize(
    ("limit", "tolerance"), [(1e8, 1e-3), (weight_decay.LIMIT, 0.04)]
)
def test_weight_decay_known_is_the_minimum_of_the_expected_error(
    limit: float, tolerance: float
) -> None:
    """E‖θ̂ − θ*‖² of ridge regression over noise and θ* with variances τ²."""
    moments, prior, noise = _decay_problem()
    groups = len(weight_decay.TAUS)

    def error(strength: Tensor) -> Tensor:
        # The last group, whose weights are 0, has the largest decay.
        decay = torch.cat([strength.exp(), torch.tensor([limit])])
        decay = decay.double().repeat_interleave(weight_decay.GROUP)
        inverse = torch.linalg.inv(moments + decay.diag())
        bias = (inverse * decay).square() @ prior
        return bias.sum() + noise * (inverse @ moments @ inverse).trace()

    known = torch.tensor(weight_decay.PROBLEM.known, dtype=torch.float64)
    found = minimised(error, known[: groups - 1] + 0.5)
    torch.testing.assert_close(found, known[: groups - 1], atol=tolerance, rtol=0)


def test_weight_decay_one_step_sees_the_known_answer() -> None:
    """E[θ̂ ∘ (θ̂ − θ*)] is 0 at the known decays and not at others, in each group."""
    moments, prior, noise = _decay_problem()
    eye = torch.eye(len(moments), dtype=torch.float64)

    def slopes(log_decay: Tensor) -> Tensor:
        decay = log_decay.exp().repeat_interleave(weight_decay.GROUP)
        inverse = torch.linalg.inv(moments + decay.diag())
        shrink = inverse @ moments
        scatter = noise * (inverse @ shrink.T).diagonal()
        slope = ((shrink * (shrink - eye)) @ prior) + scatter
        return slope.view(-1, weight_decay.GROUP).mean(dim=1)[:3]

    known = weight_decay.BEST.double().log()
    known[3] = math.log(1e8)
    assert slopes(known).abs().max() < 1e-8
    assert (slopes(known - 0.5) > 1e-5).all() and (slopes(known + 0.5) < -1e-5).all()


def test_weight_decay_common_is_the_best_single_decay() -> None:
    """Averaged over rotations of X, the error depends on the mean of τ² alone."""
    moments, prior, noise = _decay_problem()
    values = torch.linalg.eigvalsh(moments)

    def error(log_decay: Tensor) -> Tensor:
        decay = log_decay.exp()
        terms = decay.square() * prior.mean() + noise * values
        return (terms / (values + decay).square()).sum()

    found = minimised(error, torch.zeros(1))
    assert found.item() == pytest.approx(float(weight_decay.COMMON.log()), abs=1e-4)


def test_class_weights_known_is_the_minimum_for_a_large_sample() -> None:
    """Fitted to a long tail, the known weights have the least balanced loss."""
    generator = torch.Generator().manual_seed(0)

    def draw(counts: Tensor) -> tuple[Tensor, Tensor]:
        labels = torch.arange(3).repeat_interleave(counts)
        noise = torch.randn(len(labels), 3, generator=generator, dtype=torch.float64)
        return 2 * torch.eye(3, dtype=torch.float64)[labels] + noise, labels

    counts = torch.tensor([100_000, 10_000, 1_000])
    tail, balanced = draw(counts), draw(torch.full((3,), 10_000))

    def loss(theta: Tensor, data: tuple[Tensor, Tensor], weights: Tensor) -> Tensor:
        scores = data[0] @ theta.view(4, 3)[:3] + theta.view(4, 3)[3]
        losses = cross_entropy(scores, data[1], reduction="none")
        return (weights[data[1]] * losses).sum() / weights[data[1]].sum()

    def outer(log_weights: Tensor) -> float:
        weights = log_weights.exp()
        theta = minimised(lambda theta: loss(theta, tail, weights), torch.zeros(12))
        return float(loss(theta, balanced, torch.ones(3)))

    known = -counts.double().log()
    at_known = outer(known)
    for shift in torch.eye(3, dtype=torch.float64):
        assert outer(known + 0.4 * shift) > at_known
        assert outer(known - 0.4 * shift) > at_known


def test_augmentation_known_is_the_minimum_of_the_mean_outer_loss() -> None:
    """On the training digits themselves the answer is exact."""
    x, x_val, _, y, y_val, _ = augmentation_strength.digits()
    level = augmentation_strength.NOISE

    def best(images: Tensor, labels: Tensor) -> float:
        own, other = x.double(), images.double()
        wanted, eye = one_hot(labels, 10).double() - 0.1, torch.eye(own.shape[1])
        moments, other_moments = own.T @ own / len(own), other.T @ other / len(other)
        cross = own.T @ augmentation_strength.targets(y).double() / len(own)
        other_cross = other.T @ wanted / len(other)

        def outer(strength: Tensor) -> Tensor:
            solution = torch.linalg.solve(
                moments + strength.exp().square() * eye, cross
            )
            noisy = other_moments + level**2 * eye
            return (solution * (noisy @ solution / 2 - other_cross)).sum()

        return float(minimised(outer, torch.tensor([math.log(0.1)])).exp())

    assert best(x, y) == pytest.approx(level, rel=1e-4)
    # Other digits move it a little.
    assert best(x_val, y_val) == pytest.approx(level, rel=0.15)
