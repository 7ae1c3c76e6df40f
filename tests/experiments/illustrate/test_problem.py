"""The paper's one-dimensional illustration, against its stored curves and the limit.

f_T = (x − 1)² + λ x², f_V = (x − 0.5)², σ = 1, τ = 0.5, x ~ N(0, 1), Gaussian noise.
"""

import csv
import math
from pathlib import Path

import pytest
import torch

from l2l_evograd import EvoGrad, hypergradient

pytestmark = pytest.mark.usefixtures("float64")

TABLE = Path(__file__).parents[2] / "tables" / "evograd_1d.csv"
SIGMA, TEMPERATURE = 1.0, 0.5


def stored(row):
    with TABLE.open() as file:
        values = list(csv.DictReader(file))[row]
    return {key: float(value) for key, value in values.items()}


def estimates(lam, count, trials, seed):
    generator = torch.Generator().manual_seed(seed)
    estimator = EvoGrad(count, SIGMA, TEMPERATURE, "gaussian")
    results = []
    for _ in range(trials):
        x = torch.randn((), generator=generator)
        results.append(
            hypergradient(
                lambda params, lam: (params["x"] - 1) ** 2 + lam * params["x"] ** 2,
                lambda params, lam: (params["x"] - 0.5) ** 2,
                {"x": x},
                torch.tensor(lam),
                update="evolution",
                estimator=estimator,
                generator=generator,
            ).gradients
        )
    return torch.stack(results)


def limit(lam):
    """E[hypergradient] as K → ∞: −(4/(τP)) (v + μ² − μ/2).

    θ* = ∫ θ p(θ) with p ∝ N(θ; x, σ²) exp(−f_T/τ), a Gaussian of precision
    P = 1/σ² + 2(1 + λ)/τ; over x ~ N(0, 1) its mean has mean μ = (2/τ)/P and variance
    v = 1/(σ⁴P²).
    """
    precision = 1 / SIGMA**2 + 2 * (1 + lam) / TEMPERATURE
    mean = (2 / TEMPERATURE) / precision
    variance = 1 / (SIGMA**4 * precision**2)
    factor = -4 / (TEMPERATURE * precision)
    return factor * (variance + mean**2 - mean / 2)


# N fixed beforehand: as many trials as the notebook's at K = 10, and half as many at
# K = 100, where each costs ten times as much.
@pytest.mark.filterwarnings("ignore:the effective number of candidates")
@pytest.mark.parametrize("row", [5, 25, 49, 74, 99])
@pytest.mark.parametrize(("count", "trials"), [(10, 100), (100, 50)])
def test_the_stored_curve_is_met_within_four_standard_errors(row, count, trials):
    expected = stored(row)
    got = estimates(expected["lambda"], count, trials, seed=1000 + row)
    error = math.hypot(
        float(got.std()) / math.sqrt(trials),
        expected[f"std_K{count}"] / math.sqrt(100),
    )
    assert abs(float(got.mean()) - expected[f"mean_K{count}"]) <= 4 * error


@pytest.mark.parametrize("lam", [0.1, 1.0, 2.0])
def test_many_candidates_tend_to_the_closed_form(lam):
    # At K = 200 the bias of order 1/K is well below the standard error of N = 60.
    got = estimates(lam, 200, 60, seed=7)
    error = float(got.std()) / math.sqrt(60)
    assert abs(float(got.mean()) - limit(lam)) <= 4 * error


def test_the_closed_form_tends_to_the_truth_as_the_temperature_falls():
    # The truth is (λ − 1)/(λ + 1)³, from x* = 1/(1 + λ). At λ = 0.5 and τ = 0.5, 0.001
    # the limit is −0.06997 and −0.14785 against −0.14815.
    assert limit(0.5) == pytest.approx(-0.069971, abs=1e-6)
    for row in (0, 50, 99):
        expected = stored(row)
        lam = expected["lambda"]
        assert expected["ground_truth"] == pytest.approx(
            (lam - 1) / (lam + 1) ** 3, abs=1e-7
        )
