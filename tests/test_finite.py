"""One look at many tensors finds every entry that is not finite, and no other."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from l2l_evograd.checks import InputError, NotFiniteError
from l2l_evograd.finite import Watch, check_range, check_tensors

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 7, 20_000])
def test_every_entry_is_seen(size, dtype, bad):
    tensors = [torch.ones(3), torch.zeros(size, dtype=dtype), torch.ones(2, 2)]
    check_tensors({"the weights": tensors})
    tensors[1][size // 2] = bad
    with pytest.raises(NotFiniteError, match=r"in 1 of \d+ entries of tensor 1, of"):
        check_tensors({"others": [None, torch.arange(3)], "the weights": tensors})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [2, 20_000])
def test_a_sum_that_overflows_is_looked_at_again(size, dtype):
    largest = torch.finfo(dtype.to_real()).max
    check_tensors({"the weights": [torch.full((size,), largest, dtype=dtype)] * 3})


def test_opposite_infinities_do_not_cancel():
    with pytest.raises(NotFiniteError, match="got inf"):
        check_tensors({"x": [torch.tensor([math.inf]), torch.tensor([-math.inf])]})


def test_sparse_entries_without_a_place_and_no_entries():
    sparse = torch.sparse_coo_tensor(
        [[0, 2]], [1.0, math.nan], (4,), check_invariants=True
    )
    check_tensors({"x": [torch.ones(0), None]})
    check_tensors({})
    with pytest.raises(NotFiniteError, match="in 1 of 2 entries, of shape"):
        check_tensors({"the gradient": [sparse]})


@given(st.lists(st.lists(st.floats(width=32), max_size=4), max_size=4))
def test_a_look_agrees_with_a_look_at_each_number(lists):
    tensors = [torch.tensor(numbers) for numbers in lists]
    finite = all(math.isfinite(number) for numbers in lists for number in numbers)
    watch = Watch("skip")
    assert watch.passes({"the numbers": tensors}) == finite
    assert watch.skipped == (not finite)


def test_a_policy_is_one_of_two():
    with pytest.raises(InputError, match="'raise', 'skip', got None"):
        Watch(None)
    with pytest.raises(NotFiniteError):
        Watch().passes({"x": [torch.tensor(math.nan)]})


def test_a_number_is_in_the_range_of_tensors():
    check_range(1e300, [torch.ones(1, dtype=torch.float64), torch.arange(2)], "lr")
    check_range(1e30, [torch.ones(1)], "lr")
    with pytest.raises(InputError, match="in the range of torch.float32, up to 3.4e"):
        check_range(1e39, [torch.ones(1, dtype=torch.float64), torch.ones(1)], "lr")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_looked_at_later_or_waited_for():
    bad = torch.tensor([1.0, math.nan], device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        check_tensors({"the weights": [bad, torch.ones(9, device="cuda")]})
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    with pytest.raises(NotFiniteError, match="the weights of an earlier step"):
        check_tensors({"the weights": [torch.ones(1, device="cuda")]})
    with pytest.raises(NotFiniteError, match="the weights to be finite, got nan"):
        check_tensors({"the weights": [bad]}, wait=True)
