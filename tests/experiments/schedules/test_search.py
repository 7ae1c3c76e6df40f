"""The searches themselves, on a problem of small pictures."""

import math
from statistics import fmean

import pytest
import torch

from l2l_evograd import unroll
from l2l_evograd.experiments.schedules import blackbox, gradient, grid
from l2l_evograd.experiments.schedules.gradient import ValidationBatches
from l2l_evograd.experiments.schedules.methods import METHODS
from l2l_evograd.experiments.schedules.problem import Problem
from l2l_evograd.experiments.schedules.training import (
    _FAMILIES,
    find_schedule,
    retrained,
)
from l2l_evograd.experiments.schedules.trials import Trials
from l2l_evograd.seeds import derive_seed

SIGNS = ("greedy", "fds", "reversible")
NEEDED = {"dehb": ("dehb", "ConfigSpace"), "random": ("ConfigSpace",)}


def library_of(method: str) -> None:
    for name in NEEDED.get(method, ()):
        pytest.importorskip(name)


@pytest.mark.parametrize(
    ("method", "network"),
    [*((method, "mlp") for method in METHODS), ("fds", "conv"), ("reversible", "conv")],
)
def test_the_found_schedule_beats_no_training(method, network, problem):
    library_of(method)
    made = problem(network=network)
    found = find_schedule(made, method, 0)
    untrained = retrained(made, [0.0], 0)
    for own, other in zip(found["fresh"], untrained, strict=True):
        assert own["test_loss"] < 0.8 * other["test_loss"]
        assert own["test_accuracy"] > other["test_accuracy"]
    assert found["searched_loss"] == found["curve"][-1][1]
    assert len(found["schedule"]) == {
        "constant": 1,
        **dict.fromkeys(("cosine", "reversible-steps"), 14),
    }.get(method, 3)
    assert 0 < found["gradients"] <= made.settings.budget


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_determines_all_but_the_time(method, problem):
    library_of(method)
    made = problem()
    first, other = (find_schedule(made, method, seed) for seed in (0, 1))
    torch.manual_seed(99)
    again = find_schedule(made, method, 0)
    for run in (first, again):
        run.pop("seconds")
    assert again == first
    assert other["fresh"] != first["fresh"]


@pytest.mark.parametrize("method", METHODS)
def test_new_runs_have_seeds_that_no_search_had(method, problem, monkeypatch):
    library_of(method)
    seen: list[int] = []
    run = Problem.run

    def noting(self, seed, steps=None):
        seen.append(seed)
        return run(self, seed, steps)

    monkeypatch.setattr(Problem, "run", noting)
    made = problem(fresh_seeds=3)
    runs = [find_schedule(made, method, seed)["runs"] for seed in (0, 1)]
    assert sum(runs) > 1 and len(seen) > 6
    fresh = [derive_seed(seed, "fresh", n) for seed in (0, 1) for n in range(3)]
    assert len(set(fresh)) == 6
    assert [seed for seed in seen if seed in fresh] == fresh
    assert seen[-3:] == fresh[3:]  # after the search, and each once


@pytest.mark.parametrize("method", SIGNS)
def test_rates_follow_the_hypergradient_of_the_run(method, problem):
    made = problem(budget=14 * 60)
    trials = Trials(made.settings.budget)
    gradient.search_gradient(made, method, 4, trials)
    assert len(trials.all) > 3
    rates = torch.full((3,), 0.1, dtype=torch.float64)
    optimizer = unroll.SignDescent([rates], lr=0.1, upper=1.0)
    for number, trial in enumerate(trials.all):
        assert trial.rates == pytest.approx(rates.tolist(), abs=1e-12)
        seed = derive_seed(4, "search", number)
        run = made.run(seed)
        assert run["momentum"] == round(0.8 * 256) / 256
        if method == "greedy":
            run["outer_loss"] = ValidationBatches(made, seed)
            found = unroll.greedy(**run, lr=rates)
        else:
            found = unroll.unrolled_sgd(**run, lr=rates)
        assert trial.loss == pytest.approx(float(found.outer_loss), rel=1e-3)
        rates.grad = found.schedule["lr"]
        optimizer.step()


def test_greedy_sees_one_batch_a_step_and_all_images_at_the_end(problem):
    made = problem()
    run = made.run(0)
    losses = ValidationBatches(made, 0)
    found = [float(losses(run["params"], None)) for _ in range(14)]
    assert len(set(found)) == 14
    assert found[-1] == float(made.outer_loss(run["params"], None))
    # The mean of the batches is the loss of all images, up to chance.
    assert fmean(found[:-1]) == pytest.approx(found[-1], rel=0.2)


def test_a_rate_for_every_step_follows_adam_on_its_logarithm(problem):
    made = problem()
    trials = Trials(made.settings.budget)
    gradient.search_gradient(made, "reversible-steps", 0, trials)
    first, second = trials.all[:2]
    assert first.rates == pytest.approx([0.1] * 14)
    # Adam's first step has the size of its learning rate wherever there is a gradient.
    moves = [math.log(b / a) for a, b in zip(first.rates, second.rates, strict=True)]
    assert [abs(move) for move in moves] == pytest.approx([0.1] * 14, rel=1e-3)


@pytest.mark.parametrize("method", [*SIGNS, "reversible-steps"])
def test_rates_stay_in_their_range(method, problem):
    made = problem(lr_most=0.3, meta_lr=0.9, budget=14 * 40)
    trials = Trials(made.settings.budget)
    gradient.search_gradient(made, method, 0, trials)
    rates = [rate for trial in trials.all for rate in trial.rates]
    assert all(0 <= rate <= 0.3 for rate in rates)
    assert 0.3 in rates
    if method in SIGNS:
        assert 0 in rates


@pytest.mark.parametrize("method", ["constant", "cosine"])
def test_the_grid_takes_the_lowest_mean_over_all_its_runs(method, problem):
    made = problem(budget=14 * 30)
    trials = Trials(made.settings.budget)
    chosen = grid.search_grid(made, method, 0, trials)
    assert len(trials.all) == 30
    by_point: dict[tuple[float, ...], list[float]] = {}
    for trial in trials.all:
        by_point.setdefault(tuple(trial.rates), []).append(trial.loss)
    counts = [len(losses) for losses in by_point.values()]
    # 13 points twice, and the best 4 of them a third time.
    assert sorted(counts) == [2] * 9 + [3] * 4
    twice = {point: fmean(losses[:2]) for point, losses in by_point.items()}
    thrice = {point for point, losses in by_point.items() if len(losses) == 3}
    assert thrice == set(sorted(twice, key=lambda point: twice[point])[:4])
    means = {point: fmean(losses) for point, losses in by_point.items()}
    assert tuple(chosen) == min(means, key=lambda point: means[point])


def test_the_points_of_the_grid_and_the_shape_of_a_cosine(settings):
    points = grid.values(settings(lr=0.1), 13)
    assert points[0] == pytest.approx(1e-3) and points[-1] == pytest.approx(1)
    ratios = [b / a for a, b in zip(points, points[1:], strict=False)]
    assert ratios == pytest.approx([10**0.25] * 12)
    assert grid.values(settings(), 1) == pytest.approx([1e-3**0.5])
    assert grid.cosine(0.4, 4) == pytest.approx(
        [0.4, 0.2 * (1 + 0.5**0.5), 0.2, 0.2 * (1 - 0.5**0.5)]
    )


@pytest.mark.parametrize("method", METHODS)
def test_runs_that_diverge_never_win(method, fragile):
    library_of(method)
    # Sign descent jumps to rates that are too large. Adam starts from them.
    large = {"meta_lr": 1e6} if method in SIGNS else {"lr": 100.0}
    made = fragile(**large, lr_most=1e6, budget=14 * 60)
    trials = Trials(made.settings.budget)
    chosen = _FAMILIES[METHODS[method].family](made, method, 0, trials)
    losses = [trial.loss for trial in trials.all]
    assert None in losses
    assert chosen is not None and max(chosen) < 1e4
    assert trials.best is not None and trials.best.loss is not None
    assert None not in retrained(made, chosen, 0)


@pytest.mark.parametrize("method", METHODS)
def test_a_search_in_which_every_run_diverges_ends_without_a_schedule(method, fragile):
    library_of(method)
    made = fragile(lr=9e5, lr_least=9e5, lr_most=1e6, meta_lr=0.1)
    found = find_schedule(made, method, 0)
    assert found["schedule"] is None and found["searched_loss"] is None
    assert found["fresh"] == [None, None] and found["curve"] == []
    assert found["gradients"] > 0


def test_the_rates_are_halved_after_a_run_that_diverged(fragile):
    made = fragile(lr=1e6, lr_most=1e6)
    trials = Trials(made.settings.budget)
    gradient.search_gradient(made, "greedy", 0, trials)
    starts = [trial.rates[0] for trial in trials.all]
    assert starts == pytest.approx([1e6 / 2**n for n in range(len(starts))])


def test_short_runs_go_through_all_windows(problem, monkeypatch):
    library_of("dehb")
    made = problem(steps=54)
    lengths = []
    train = blackbox.run_sgd

    def noting(**given):
        lengths.append(given["steps"])
        assert len(given["lr"]) == 3 and len(given["inner_loss"]) == given["steps"]
        return train(**given)

    monkeypatch.setattr(blackbox, "run_sgd", noting)
    trials = Trials(made.settings.budget)
    blackbox.search_black_box(made, "dehb", 0, trials)
    assert set(lengths) == {6, 18, 54}
    own = lengths[: len(trials.all)]  # without the new run at the end
    assert [trial.whole for trial in trials.all] == [length == 54 for length in own]
    assert trials.spent == sum(own) <= made.settings.budget


def test_the_curve_goes_down_and_counts_whole_runs_only():
    seen: list[tuple[int, float | None]] = []
    trials = Trials(100, lambda *figures: seen.append(figures))
    trials.add(10, [0.1], None)
    trials.add(5, [0.2], 0.1, whole=False)
    trials.add(10, [0.3], 0.8)
    trials.add(10, [0.4], 0.9)
    trials.add(10, [0.5], math.nan)
    trials.add(10, [0.6], 0.7)
    assert trials.curve() == [(25, 0.8), (55, 0.7)]
    assert trials.best is not None and trials.best.rates == [0.6]
    assert seen == [(10, None), (15, None), (25, 0.8), (35, 0.8), (45, 0.8), (55, 0.7)]
    assert trials.allow(45) and not trials.allow(46)
