import math

import pytest
import torch
from estimated import estimate, problem
from torch.nn.functional import cosine_similarity

from l2l_evograd import EvoGrad, Exact

# 400 draws: enough that a bias of a fifth of a standard deviation of one draw would
# show at 4 standard errors, and fixed before looking.
DRAWS = 400


@pytest.mark.parametrize("update", ["gradient", "evolution"])
@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
@pytest.mark.parametrize("sampling", ["plain", "antithetic", "orthogonal"])
def test_the_mean_of_many_draws_agrees_with_exact(update, noise, sampling):
    parts = problem()
    estimator = EvoGrad(4, 1e-4, 0.05, noise, sampling)
    lr = 0.1 if update == "gradient" else estimator.learning_rate
    exact = estimate(parts, Exact(), lr=lr)
    generator = torch.Generator().manual_seed(17)
    draws = torch.stack(
        [
            estimate(parts, estimator, lr=lr, update=update, generator=generator)
            for _ in range(DRAWS)
        ]
    )
    if update == "evolution":
        # Algorithm 1 takes its cotangent at θ*, not at θ − η∇ℓ: both are within
        # O(σ) of θ, where the direct part of the gradient is 0.
        assert estimator.learning_rate < 1e-6
    error = draws.std(0) / math.sqrt(DRAWS)
    assert bool(((draws.mean(0) - exact).abs() <= 4 * error).all())
    assert float(cosine_similarity(draws.mean(0), exact, dim=0)) > 0.9


def test_the_settings_of_the_paper_stand_for_a_learning_rate_of_1e_5():
    assert EvoGrad().learning_rate == pytest.approx(1e-5)
    assert EvoGrad(sampling="antithetic").learning_rate == pytest.approx(2e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_model_candidates": 0}, r"\(K\) to be a whole number of at least 2, got 0"),
        ({"n_model_candidates": 2.5}, "whole number of at least 2, got 2.5"),
        ({"n_model_candidates": True}, "whole number of at least 2, got True"),
        ({"n_model_candidates": 1}, "single candidate .* exactly 0; use at least 2"),
        ({"sigma": 0.0}, "sigma to be positive and finite, got 0.0"),
        ({"sigma": float("nan")}, "sigma to be positive and finite, got nan"),
        ({"temperature": -1.0}, "temperature to be positive and finite, got -1.0"),
        ({"temperature": float("inf")}, "temperature to be positive .* got inf"),
        ({"noise": "uniform"}, "noise to be one of 'rademacher', 'gaussian', got"),
        ({"sampling": "sobol"}, "sampling to be one of 'plain', .* got 'sobol'"),
        (
            {"n_model_candidates": 3, "sampling": "antithetic"},
            "expected an even n_model_candidates, got 3",
        ),
    ],
)
def test_a_population_that_cannot_work_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EvoGrad(**settings)
