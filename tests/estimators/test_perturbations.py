import math

import pytest
import torch

from l2l_evograd.estimators.perturbations import (
    FAMILIES,
    SAMPLINGS,
    Perturbations,
    dot,
)
from l2l_evograd.seeds import draw_seed

pytestmark = pytest.mark.usefixtures("float64")

LIKE = [torch.zeros(shape, dtype=torch.float64) for shape in ((3, 5), (17,), ())]
SIZE = 33


def flat(noise):
    return torch.cat([t.reshape(-1) for t in noise])


def population(count=8, sigma=0.5, seed=3, **kwargs):
    return Perturbations(LIKE, count, sigma, seed, **kwargs)


@pytest.mark.parametrize("family", ["rademacher", "gaussian"])
@pytest.mark.parametrize("sampling", ["plain", "antithetic", "orthogonal"])
def test_a_draw_can_be_drawn_again_bit_for_bit(family, sampling):
    noise = population(family=family, sampling=sampling)
    first = [flat(noise.draw(k)) for k in range(8)]
    again = population(family=family, sampling=sampling)
    for k in reversed(range(8)):
        assert torch.equal(flat(again.draw(k)), first[k])
    assert len({tuple(row.tolist()) for row in first}) == 8


def test_another_seed_gives_other_noise():
    assert not torch.equal(
        flat(population(seed=3).draw(0)), flat(population(seed=4).draw(0))
    )


@pytest.mark.parametrize("sampling", ["plain", "antithetic", "orthogonal"])
def test_sign_noise_is_plus_or_minus_sigma(sampling):
    noise = population(sampling=sampling)
    for k in range(8):
        assert torch.equal(flat(noise.draw(k)).abs(), torch.full((SIZE,), 0.5))


@pytest.mark.parametrize("family", ["rademacher", "gaussian"])
def test_antithetic_noise_comes_in_pairs(family):
    noise = population(family=family, sampling="antithetic")
    for k in range(4):
        assert torch.equal(flat(noise.draw(k)), -flat(noise.draw(k + 4)))
    assert noise.degrees_of_freedom == 8


def test_orthogonal_gaussian_noise_is_orthogonal_and_keeps_its_lengths():
    noise = population(family="gaussian", sampling="orthogonal")
    plain = population(family="gaussian")
    rows = torch.stack([flat(noise.draw(k)) for k in range(8)])
    gram = rows @ rows.T
    lengths = torch.stack([flat(plain.draw(k)).square().sum() for k in range(8)])
    assert torch.allclose(gram, torch.diag(lengths), rtol=1e-10, atol=1e-10)


def test_orthogonal_sign_noise_is_orthogonal_up_to_the_remainder():
    like = [torch.zeros(3, 5), torch.zeros(17)]  # 32 weights, 4 blocks of 8
    noise = Perturbations(like, 7, 0.5, 3, sampling="orthogonal")
    rows = torch.stack([flat(noise.draw(k)) for k in range(7)])
    assert torch.equal(rows @ rows.T, 0.25 * 32 * torch.eye(7))
    longer = population(count=7, sampling="orthogonal")
    rows = torch.stack([flat(longer.draw(k)) for k in range(7)])
    outside = rows @ rows.T - torch.diag((rows @ rows.T).diagonal())
    assert float(outside.abs().max()) <= 0.25 * (SIZE % 8)


@pytest.mark.parametrize("family", ["rademacher", "gaussian"])
@pytest.mark.parametrize("sampling", ["plain", "antithetic", "orthogonal"])
def test_the_spread_of_a_population_has_the_expectation_it_claims(family, sampling):
    # E[Σ_k (ε_k − ε̄)(ε_k − ε̄)ᵀ] = dof σ² I, over N = 2000 populations, 4 standard
    # errors of every entry.
    draws, count, sigma = 2000, 4, 0.5
    samples = []
    like = [torch.zeros(2), torch.zeros(2)]
    for seed in range(draws):
        noise = Perturbations(like, count, sigma, seed, family, sampling)
        rows = torch.stack([flat(noise.draw(k)) for k in range(count)])
        centred = rows - rows.mean(0)
        samples.append(centred.T @ centred / (noise.degrees_of_freedom * sigma**2))
    matrices = torch.stack(samples)
    error = matrices.std(0) / math.sqrt(draws)
    gap = (matrices.mean(0) - torch.eye(4)).abs()
    assert bool((gap <= 4 * error + 1e-12).all())


def test_gaussian_noise_scales_with_sigma():
    wide, narrow = (population(family="gaussian", sigma=s) for s in (2.0, 1.0))
    assert torch.allclose(flat(wide.draw(1)), 2 * flat(narrow.draw(1)), rtol=1e-12)


def test_projection_is_the_inner_product_with_every_draw():
    noise = population()
    direction = [torch.randn_like(t) for t in LIKE]
    expected = torch.stack([dot(direction, noise.draw(k)) for k in range(8)])
    assert torch.equal(noise.project(direction), expected)


def test_noise_takes_the_dtype_of_the_weights():
    like = [torch.zeros(3, dtype=torch.float32), torch.zeros(2, dtype=torch.bfloat16)]
    drawn = Perturbations(like, 2, 0.5, 0).draw(0)
    assert [t.dtype for t in drawn] == [torch.float32, torch.bfloat16]


def test_drawing_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    generator = torch.Generator().manual_seed(1)
    noise = Perturbations(LIKE, 4, 1.0, draw_seed(generator), "gaussian", "orthogonal")
    noise.draw(2)
    assert torch.equal(before, torch.get_rng_state())


def test_an_odd_number_of_pairs_is_refused():
    with pytest.raises(ValueError, match="pairs: expected an even number .* got 3"):
        Perturbations(LIKE, 3, 1.0, 0, sampling="antithetic")


def test_more_orthogonal_directions_than_weights_are_refused():
    with pytest.raises(ValueError, match="at most 33 perturbations .* got 34"):
        Perturbations(LIKE, 34, 1.0, 0, sampling="orthogonal")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_noise_is_laid_out_as_the_weights_are(family, sampling):
    last = torch.zeros(3, 4, 2, 2).to(memory_format=torch.channels_last)
    like = [torch.zeros(5), last, torch.zeros(4, 3).T, torch.zeros(2, 6)[:, ::2]]
    noise = Perturbations(like, 4, 0.5, 1, family, sampling)
    for k in range(4):
        drawn = noise.draw(k)
        assert [d.shape for d in drawn] == [t.shape for t in like]
        assert [d.stride() for d in drawn[:3]] == [t.stride() for t in like[:3]]
        for one, again in zip(drawn, noise.draw(k), strict=True):
            assert torch.equal(one, again)
        if family == "rademacher":
            assert all(bool((d.abs() == 0.5).all()) for d in drawn)
    if sampling == "orthogonal":
        flats = [torch.cat([d.flatten() for d in noise.draw(k)]) for k in range(2)]
        count = flats[0].numel() // 4 * 4
        # Exact for Gaussian noise, and for signs but for the last P mod 4 weights.
        left = 0.0 if family == "gaussian" else 0.25 * (flats[0].numel() - count)
        assert abs(float(flats[0] @ flats[1])) <= left + 1e-5


def test_signs_are_independent_and_fair():
    count, draws = 1003, 400  # no whole number of bytes
    rows = [
        Perturbations([torch.zeros(count)], 1, 1.0, seed).draw(0)[0]
        for seed in range(draws)
    ]
    signs = torch.stack(rows)
    assert abs(float(signs.mean())) < 4 / math.sqrt(signs.numel())
    by_place = signs.mean(0) * math.sqrt(draws)  # about standard normal
    assert float(by_place.square().mean()) == pytest.approx(
        1, abs=4 * math.sqrt(2 / count)
    )
    for apart in (1, 7, 8, 64):  # within a byte, across bytes, across words
        product = (signs[:, apart:] * signs[:, :-apart]).mean()
        assert abs(float(product)) < 4 / math.sqrt(draws * (count - apart))
