import csv
import json
import math
from pathlib import Path

import pytest
import torch
from naive import algorithm_one

from l2l_evograd import cli, hypergradient
from l2l_evograd.experiments.illustrate import problem
from l2l_evograd.seeds import draw_seed

pytestmark = pytest.mark.usefixtures("float64")

TABLE = Path(__file__).parents[2] / "tables" / "evograd_1d.csv"


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_call(x: float, lam: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    result = hypergradient(
        lambda params, lam: problem.inner_loss(params["x"], lam),
        lambda params, lam: problem.outer_loss(params["x"]),
        {"x": torch.tensor(x)},
        lam,
        update="evolution",
        estimator=problem.population(count),
        generator=seeded(seed),
    )
    return result.gradients


@pytest.mark.filterwarnings("ignore:the effective number of candidates")
@pytest.mark.parametrize("count", problem.COUNTS)
@pytest.mark.parametrize("lam", [0.1, 1.0, 2.0])
def test_an_estimate_is_what_hypergradient_returns(count, lam):
    found = problem.estimates(
        torch.tensor([0.7]),
        torch.tensor([lam]),
        problem.population(count),
        draw_seed(seeded(5)),
    )
    assert found[0] == by_call(0.7, torch.tensor(lam), count, seed=5)


def test_every_problem_has_a_population_of_its_own():
    x, lam = torch.tensor([0.3, -1.2, 0.3]), torch.tensor([0.1, 1.0, 2.0])
    estimator = problem.population(7)
    noise = estimator.perturbations([x], seed=3)
    draws = [noise.draw(k)[0] for k in range(7)]
    found = problem.estimates(x, lam, estimator, seed=3)
    for i in range(3):
        expected, _, _ = algorithm_one(
            lambda theta, lam: problem.inner_loss(theta[0], lam),
            lambda theta: problem.outer_loss(theta[0]),
            [x[i]],
            lam[i],
            [[draw[i]] for draw in draws],
            problem.TEMPERATURE,
        )
        assert float(found[i]) == pytest.approx(float(expected), abs=1e-12)


# One curve as the command draws it, N = 100 trials, against the notebook's, N = 100.
@pytest.mark.parametrize("count", problem.COUNTS)
def test_the_curve_is_the_notebooks_within_four_standard_errors(count):
    with TABLE.open() as file:
        rows = list(csv.DictReader(file))
    mean = torch.tensor([float(row[f"mean_K{count}"]) for row in rows])
    sd = torch.tensor([float(row[f"std_K{count}"]) for row in rows])
    found = problem.curve(count, 100, seeded(0))
    error = torch.hypot(found.sd, sd) / math.sqrt(100)
    assert ((found.mean - mean).abs() <= 4 * error).all()


# Expectation and standard deviation of one estimate at K = 2, by quadrature; the
# expectation at K = 10 to 3e-4.
@pytest.mark.parametrize(
    ("lam", "pair", "sd", "ten"),
    [
        (0.1, -0.17727, 0.947, -0.3264),
        (0.5, -0.04275, 0.572, -0.0850),
        (1.0, 0.00362, 0.396, -0.0004),
        (1.5, 0.01461, 0.304, 0.0217),
        (2.0, 0.01627, 0.245, 0.0263),
    ],
)
def test_the_expectation_is_the_known_one(lam, pair, sd, ten):
    trials = 40_000
    x, lams = torch.randn(trials, generator=seeded(1)), torch.full((trials,), lam)
    found = problem.estimates(x, lams, problem.population(2), seed=2)
    assert abs(float(found.mean()) - pair) <= 4 * sd / math.sqrt(trials)
    found = problem.estimates(x, lams, problem.population(10), seed=3)
    error = math.hypot(float(found.std()) / math.sqrt(trials), 3e-4)
    assert abs(float(found.mean()) - ten) <= 4 * error


@pytest.mark.parametrize("lam", [0.1, 1.0, 2.0])
def test_many_candidates_tend_to_the_limit(lam):
    # At K = 500 the bias of order 1/K is well below the standard error of N = 400.
    x, lams = torch.randn(400, generator=seeded(4)), torch.full((400,), lam)
    found = problem.estimates(x, lams, problem.population(500), seed=5)
    error = float(found.std()) / math.sqrt(400)
    assert abs(float(found.mean()) - problem.limit(lam)) <= 4 * error


def test_the_truth_is_the_derivative_at_the_minimiser():
    lam = problem.grid().requires_grad_()
    outer = problem.outer_loss(1 / (1 + lam)).sum()
    (expected,) = torch.autograd.grad(outer, lam)
    torch.testing.assert_close(problem.truth(lam), expected, rtol=0, atol=1e-12)


def test_a_step_of_a_trajectory_moves_x_then_lam():
    first, second = problem.trajectory((1.3, 0.2), 10, seeded(8))[:2]
    x = 1.3 - 0.1 * (2 * 0.3 + 2 * 0.2 * 1.3)
    gradient = float(by_call(x, torch.tensor(0.2), 10, seed=8))
    assert first == (1.3, 0.2)
    assert second == pytest.approx((x, 0.2 - 0.1 * gradient), abs=1e-12)


# λ at the end of the notebook's paths, along the true hypergradient and at K = 10.
@pytest.mark.parametrize(
    ("start", "true_end", "stored"),
    [
        ((-1.8, 0.2), (0.18321, 0.37515), 0.28548),
        ((-0.9, 1.2), (0.38055, 1.19074), 1.18750),
        ((0.9, 0.8), (0.58956, 0.81639), 0.81706),
        ((1.3, 0.2), (0.88974, 0.37515), 0.35497),
        ((1.5, 1.7), (0.39555, 1.68226), 1.67804),
    ],
)
def test_trajectories_end_where_the_notebooks_do(start, true_end, stored):
    assert problem.true_trajectory(start)[-1] == pytest.approx(true_end, abs=1e-5)
    generator = seeded(9)
    ends = [problem.trajectory(start, 10, generator)[-1][1] for _ in range(10)]
    found = torch.tensor(ends)
    error = float(found.std()) * math.sqrt(1 + 1 / len(ends))
    assert abs(float(found.mean()) - stored) <= 4 * error


def test_the_command_leaves_figures_and_pictures(tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["illustrate", "--trials", "3", "--out", str(out)]
    assert cli.main(arguments) == 0
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("settings.json", "results.json", "estimates.png", "trajectories.png"),
        "settings.previous.json",
    }
    assert "corr. with truth" in capsys.readouterr().out
    text = (out / "results.json").read_text()
    content = json.loads(text)
    assert content["settings"] == {"trials": 3, "seed": 0}
    assert [row["candidates"] for row in content["summary"]] == [2, 10, 100]
    expected = problem.curve(2, 3, seeded(0)).mean.tolist()
    assert content["estimates"][0]["mean"] == expected
    assert len(content["trajectories"][1]["paths"]) == len(problem.STARTS)
    assert cli.main(arguments) == 2
    assert "replace it (--overwrite)" in capsys.readouterr().err
    (out / "angle.png").touch()
    assert cli.main([*arguments, "--overwrite"]) == 0
    assert (out / "results.json").read_text() == text
    assert not (out / "angle.png").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            ["--trials", "1"],
            "expected trials to be a whole number of at least 2, got 1",
        ),
        (["--seed", "-1"], "expected seed to be a whole number of at least 0, got -1"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(option, message, tmp_path, capsys):
    assert cli.main(["illustrate", "--out", str(tmp_path / "run"), *option]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert list(tmp_path.iterdir()) == []
