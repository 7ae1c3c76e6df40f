"""Hypergradients over the whole range of a dtype, against naive float64 formulas."""

import itertools
import math

import pytest
import torch
from estimated import estimate, problem

from l2l_evograd import EvoGrad, Exact, Guided, hypergradient
from l2l_evograd.estimators.perturbations import Perturbations
from l2l_evograd.estimators.scaling import (
    in_turn,
    largest,
    lengths,
    normalised,
    power_below,
    power_of_number,
)

# Exponents of the scale of the outer loss, and the tolerance, by dtype. Half precision
# needs longer steps than the defaults.
SCALES = {
    torch.float64: ([-290, -160, -24, 0, 24, 160, 290], 1e-6),
    torch.float32: ([-34, -30, -24, -12, 0, 12, 20, 30, 34], 2e-3),
    torch.bfloat16: ([-34, -24, 0, 20, 34], 0.15),
    torch.float16: ([-3, -2, 0, 2], 0.15),
}
CASES = list(itertools.product(SCALES, ["plain", "antithetic", "orthogonal"]))


def scaled(parts, exponent):
    inner, outer, theta, lam = parts
    return inner, lambda p, x: 10.0**exponent * outer(p, x), theta, lam


def in_double(parts):
    """The same problem, with the rounded values of its tensors, in float64."""
    _, _, theta, lam = parts
    inner, outer, _, _ = problem(torch.float64)
    return inner, outer, {n: t.double() for n, t in theta.items()}, lam.double()


def cotangent(parts, lr):
    inner, outer, theta, lam = parts
    weights = [t.clone().requires_grad_() for t in theta.values()]

    def named(values):
        return dict(zip(theta, values, strict=True))

    slopes = torch.autograd.grad(inner(named(weights), lam), weights)
    after = [
        (w - lr * s).detach().requires_grad_()
        for w, s in zip(weights, slopes, strict=True)
    ]
    return named, torch.autograd.grad(outer(named(after), lam), after)


def slope_of_lambda(parts, named, weights):
    lam = parts[3].clone().requires_grad_()
    return torch.autograd.grad(parts[0](named(weights), lam), lam)[0]


def naive_guided(parts, h, lr):
    named, v = cotangent(parts, lr)
    norm = math.sqrt(sum(float((t * t).sum()) for t in v))
    ends = [
        slope_of_lambda(
            parts,
            named,
            [w + s * h * t / norm for w, t in zip(parts[2].values(), v, strict=True)],
        )
        for s in (1, -1)
    ]
    return -lr * norm * (ends[0] - ends[1]) / (2 * h)


def naive_population(parts, noise, freedom, sigma, lr):
    named, v = cotangent(parts, lr)
    scores = [
        sum(float((t * e).sum()) for t, e in zip(v, part, strict=True))
        for part in noise
    ]
    mean = sum(scores) / len(scores)
    total = 0.0
    for score, part in zip(scores, noise, strict=True):
        weights = [w + e for w, e in zip(parts[2].values(), part, strict=True)]
        total = total + (score - mean) * slope_of_lambda(parts, named, weights)
    return -lr * total / (freedom * sigma**2)


def naive_evolution(parts, noise, temperature):
    inner, outer, theta, lam = parts
    lam = lam.clone().requires_grad_()
    weights = list(theta.values())

    def named(values):
        return dict(zip(theta, values, strict=True))

    losses = torch.stack(
        [
            inner(named([w + e for w, e in zip(weights, part, strict=True)]), lam)
            for part in noise
        ]
    )
    shares = torch.softmax(-losses / temperature, 0)
    after = [
        w + sum(shares[k] * part[n] for k, part in enumerate(noise))
        for n, w in enumerate(weights)
    ]
    return torch.autograd.grad(outer(named(after), lam), lam)[0]


def gap(found, exponent, expected):
    found = found.double() * 10.0**-exponent
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("scheme", ["central", "forward"])
@pytest.mark.parametrize("dtype", SCALES)
def test_guided_is_linear_in_the_outer_loss(dtype, scheme):
    exponents, tolerance = SCALES[dtype]
    h = {torch.float64: 1e-3, torch.float32: 1e-2}.get(dtype, 0.5)
    parts = problem(dtype)
    expected = naive_guided(in_double(parts), h, 0.1)
    for exponent in exponents:
        estimator = Guided(h=h, scheme=scheme)
        found = estimate(scaled(parts, exponent), estimator)
        slack = 0.0 if scheme == "central" else 3 * h
        assert gap(found, exponent, expected) <= tolerance + slack


@pytest.mark.parametrize(("dtype", "sampling"), CASES)
@pytest.mark.parametrize("update", ["gradient", "evolution"])
def test_populations_are_linear_in_the_outer_loss(dtype, sampling, update):
    exponents, tolerance = SCALES[dtype]
    sigma = {torch.float64: 1e-3, torch.float32: 2e-2}.get(dtype, 0.25)
    parts, seed = problem(dtype), 5
    estimator = EvoGrad(4, sigma=sigma, temperature=5.0, sampling=sampling)
    drawn = torch.Generator().manual_seed(seed)
    known = []

    class Seen(EvoGrad):
        def perturbations(self, params, seed):
            known.append(seed)
            return super().perturbations(params, seed)

    estimate(
        parts,
        Seen(4, sigma=sigma, temperature=5.0, sampling=sampling),
        update=update,
        generator=drawn,
    )
    like = list(parts[2].values())
    population = Perturbations(like, 4, sigma, known[0], sampling=sampling)
    noise = [[e.double() for e in population.draw(k)] for k in range(4)]
    double = in_double(parts)
    if update == "gradient":
        freedom = population.degrees_of_freedom
        expected = naive_population(double, noise, freedom, sigma, 0.1)
    else:
        expected = naive_evolution(double, noise, 5.0)
    for exponent in exponents:
        found = estimate(
            scaled(parts, exponent),
            estimator,
            update=update,
            generator=torch.Generator().manual_seed(seed),
        )
        assert gap(found, exponent, expected) <= tolerance


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("dtype", SCALES)
def test_exact_is_linear_in_the_outer_loss(dtype, mode):
    exponents, tolerance = SCALES[dtype]
    parts = problem(dtype)
    expected = estimate(in_double(parts), Exact("reverse"))
    for exponent in exponents:
        found = estimate(scaled(parts, exponent), Exact(mode))
        assert gap(found, exponent, expected) <= tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_powers_of_two_change_no_bit(dtype):
    parts = problem(dtype)
    for estimator in (Guided(), Guided(scheme="forward"), EvoGrad(4)):
        first, other = (
            hypergradient(
                parts[0],
                lambda p, x, c=c: 2.0**c * parts[1](p, x),
                *parts[2:],
                lr=0.1,
                estimator=estimator,
                generator=torch.Generator().manual_seed(0),
            ).gradients
            for c in (0, 70)
        )
        assert torch.equal(first * 2.0**70, other)


def test_the_largest_power_of_two_below_a_number():
    numbers = [0.75, 1.0, 1.5, 4.0, 3e38, 1e-45, 0.0]
    found = power_below(torch.tensor(numbers)).tolist()
    assert found == [0.5, 1.0, 1.0, 4.0, 2.0**126, 2.0**-126, 1.0]
    assert [power_of_number(x) for x in (0.75, 1.0, 1e-300)] == [
        0.5,
        1.0,
        2.0 ** math.floor(math.log2(1e-300)),
    ]
    assert not power_below(torch.tensor([math.nan, math.inf])).isfinite().any()


@pytest.mark.parametrize("scale", [1e-38, 1e-25, 1.0, 1e25, 1e37])
def test_lengths_of_what_is_normalised_neither_overflow_nor_vanish(scale):
    tensors = [torch.full((3, 4), 2 * scale), torch.zeros(3), torch.full((3, 2), scale)]
    parts, power = normalised(tensors)
    assert float(lengths(parts)) * float(power) == pytest.approx(
        scale * math.sqrt(12 * 4 + 6), rel=1e-5
    )
    parts, powers = normalised(tensors, per_task=True)
    found = lengths(parts, per_task=True) * powers.double()
    assert found.tolist() == pytest.approx([scale * math.sqrt(4 * 4 + 2)] * 3, rel=1e-5)


def test_the_largest_entry_of_tensors_some_of_which_are_empty():
    assert float(largest([torch.empty(0), torch.tensor([1.0, -3.0])])) == 3
    assert float(largest([torch.empty(0)])) == 0


def test_factors_whose_product_is_out_of_range():
    found = in_turn(torch.tensor([2.0]), 2.0**-140, torch.tensor(2.0**120))
    assert found.tolist() == [2.0**-19]
    half = in_turn(torch.tensor([2.0], dtype=torch.float16), 2.0**20, 2.0**-20)
    assert half.tolist() == [2.0]
