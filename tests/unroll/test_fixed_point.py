"""Whole numbers times fractions, undone bit for bit, whatever they are."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l_evograd.unroll.fixed_point import (
    InformationBuffer,
    scaled,
    to_fixed,
    to_float,
)

numbers = st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=5)


@st.composite
def fractions(draw):
    """A denominator, and numerators one after the other."""
    d = draw(st.sampled_from([2, 3, 10, 256, 257, 4096, 2**20]) | st.integers(2, 2**20))
    n = st.integers(1, d) | st.sampled_from([1, d])
    return d, draw(st.lists(n, min_size=1, max_size=60))


@settings(max_examples=100, deadline=None)
@given(numbers, fractions())
def test_multiplications_are_undone_exactly(values, fraction):
    d, numerators = fraction
    start = torch.tensor(values)
    value = start.clone()
    buffer = InformationBuffer(value, d)
    for n in numerators:
        buffer.multiply(value, n)
    for n in reversed(numerators):
        buffer.divide(value, n)
    assert torch.equal(value, start)
    assert buffer.empty


@settings(max_examples=100, deadline=None)
@given(numbers, fractions())
def test_it_is_algorithm_3_in_python_integers(values, fraction):
    d, numerators = fraction
    value = torch.tensor(values)
    buffer = InformationBuffer(value, d)
    expected, kept = list(values), [0] * len(values)
    for n in numerators:
        buffer.multiply(value, n)
        for i, v in enumerate(expected):
            b = kept[i] * d + v % d
            expected[i], kept[i] = v // d * n + b % n, b // n
    if not buffer.words:  # a buffer that had to be stored continues with other digits
        assert value.tolist() == expected
    lost = [abs(a - b) for a, b in zip(value.tolist(), expected, strict=True)]
    assert max(lost) <= d * len(numerators)


def test_a_product_is_a_product_up_to_d_units():
    value = torch.tensor([2**50 + 12345, -(2**49) - 777, 5])
    expected = value.double() * 230 / 256
    InformationBuffer(value, 256).multiply(value, 230)
    assert (value - expected).abs().max() <= 256


def test_a_full_buffer_is_stored_in_words():
    value = torch.randint(-(2**50), 2**50, (100,))
    start = value.clone()
    buffer = InformationBuffer(value, 256)
    for _ in range(500):
        buffer.multiply(value, 128)
        value.add_(2**40)
    # One bit each step: 500 bits are 15 words and a rest.
    assert 14 <= buffer.words <= 15
    for _ in range(500):
        value.sub_(2**40)
        buffer.divide(value, 128)
    assert torch.equal(value, start) and buffer.empty


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1000, 1000), min_size=1, max_size=5), st.integers(30, 48))
def test_conversion_is_odd_and_nearest(values, bits):
    tensor = torch.tensor(values, dtype=torch.float64)
    stored = to_fixed(tensor, bits)
    assert torch.equal(to_fixed(-tensor, bits), -stored)
    back = to_float(stored, bits, torch.float64)
    assert (back - tensor).abs().max() <= 2.0 ** -(bits + 1)
    assert torch.equal(to_fixed(back, bits), stored)
    assert torch.equal(scaled(-stored, 0.3), -scaled(stored, 0.3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_number_comes_back_in_the_precision_asked_for(dtype):
    assert to_float(torch.tensor([1 << 40]), 40, dtype).dtype == dtype
