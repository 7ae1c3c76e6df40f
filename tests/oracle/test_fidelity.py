"""The statistics behind a comparison, against loops and hand-made numbers."""

import math

import pytest
import torch
from torch import Tensor

from l2l_evograd.oracle.fidelity import Figure, fidelity, figure, flat


def drawn(count: int, size: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    exact = torch.randn(size, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, size, generator=generator, dtype=torch.float64)
    return exact + noise, exact


def test_single_draws_are_measured_one_by_one_and_averaged() -> None:
    draws, exact = drawn(7)
    found = fidelity(draws, exact, random=True)
    cosines = torch.cosine_similarity(draws, exact[None], dim=1)
    assert found.cosine.value == pytest.approx(float(cosines.mean()), rel=1e-12)
    error = float(cosines.std()) / math.sqrt(7)
    assert found.cosine.error == pytest.approx(error, rel=1e-12)
    ratios = draws.norm(dim=1) / exact.norm()
    assert found.norm_ratio.value == pytest.approx(float(ratios.mean()), rel=1e-12)


def test_errors_of_the_mean_equal_a_jackknife_by_loop() -> None:
    draws, exact = drawn(9)
    found = fidelity(draws, exact, random=True)
    cosines, ratios = [], []
    for i in range(9):
        rest = torch.cat([draws[:i], draws[i + 1 :]]).mean(dim=0)
        cosines.append(float(rest @ exact / rest.norm() / exact.norm()))
        ratios.append(float(rest.norm() / exact.norm()))
    for values, measured in (
        (cosines, found.mean_cosine),
        (ratios, found.mean_norm_ratio),
    ):
        center = sum(values) / 9
        error = math.sqrt(8 / 9 * sum((value - center) ** 2 for value in values))
        assert measured.error == pytest.approx(error, rel=1e-10)
    mean = draws.mean(dim=0)
    ratio = float(mean.norm() / exact.norm())
    assert found.mean_norm_ratio.value == pytest.approx(ratio, rel=1e-12)


def test_bias_and_noise_of_unbiased_draws_are_found() -> None:
    # Noise of variance 1 in each of 6 places, 4000 draws: ‖m − g‖² has mean 6/4000.
    draws, exact = drawn(4000)
    found = fidelity(draws, exact, random=True)
    norm = float(exact.norm())
    assert found.noise == pytest.approx(math.sqrt(6) / norm, rel=0.05)
    assert found.bias < 4 * math.sqrt(6 / 4000) / norm
    assert abs(found.projection.value - 1) < 4 * found.projection.error


def test_a_bias_is_found_below_the_noise() -> None:
    draws, exact = drawn(4000)
    found = fidelity(draws + 0.5 * exact, exact, random=True)
    assert found.bias == pytest.approx(0.5, abs=0.05)
    assert found.noise > 0.5


def test_an_estimate_that_is_not_random_has_no_error_and_no_noise() -> None:
    draws, exact = drawn(1)
    found = fidelity(draws, exact, random=False)
    figures = (found.cosine, found.norm_ratio, found.mean_cosine, found.projection)
    assert all(item.error == 0 for item in figures)
    assert found.noise == 0
    gap = float((draws[0] - exact).norm() / exact.norm())
    assert found.bias == pytest.approx(gap, rel=1e-12)


def test_a_single_random_draw_leaves_errors_unknown() -> None:
    draws, exact = drawn(1)
    found = fidelity(draws, exact, random=True)
    assert math.isfinite(found.cosine.value)
    assert math.isnan(found.cosine.error)
    assert math.isnan(found.mean_cosine.error)
    assert math.isnan(found.noise)


def test_a_draw_of_zero_has_cosine_zero() -> None:
    _, exact = drawn(1)
    found = fidelity(torch.zeros(2, 6, dtype=torch.float64), exact, random=True)
    assert found.cosine.value == 0
    assert found.mean_cosine.value == 0
    assert found.norm_ratio.value == 0
    assert found.bias == pytest.approx(1)


def test_flat_keeps_the_order_and_widens() -> None:
    parts = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor(5.0)]
    result = flat(parts)
    assert result.tolist() == [1, 2, 3, 4, 5]
    assert result.dtype == torch.float64


def test_a_figure_prints_its_error_only_where_there_is_one() -> None:
    assert format(Figure(0.12345, 0.01), ".3g") == "0.123\n±0.01"
    assert format(Figure(1.0, 0.0), ".3g") == "1"
    assert format(Figure(1.0, math.nan), ".3g") == "1"


def test_figure_takes_the_standard_error_of_the_mean() -> None:
    found = figure(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64), True)
    assert found.value == 2.5
    assert found.error == pytest.approx(math.sqrt(5 / 3) / 2)
