import contextlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from l2l_evograd.functional import Circumstances, preserved_random_state

pytestmark = pytest.mark.usefixtures("float64")

CPU = torch.device("cpu")


def test_dropout_repeats_and_the_random_state_comes_back():
    torch.manual_seed(3)
    now = Circumstances.now([])
    x = torch.ones(50)
    first = F.dropout(x)
    between = torch.get_rng_state()
    for _ in range(2):
        with now.again():
            assert torch.equal(F.dropout(x), first)
        assert torch.equal(torch.get_rng_state(), between)


def test_without_restoring_the_random_state_goes_on_from_the_repetition():
    torch.manual_seed(3)
    now = Circumstances.now([])
    first, second = torch.rand(3), torch.rand(3)
    torch.manual_seed(4)
    with now.again(restore_random=False):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.rand(3), second)


def test_the_random_state_comes_back_after_an_error():
    now = Circumstances.now([CPU])
    torch.manual_seed(8)
    before = torch.get_rng_state()
    with pytest.raises(KeyError), now.again():
        torch.rand(2)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(KeyError), preserved_random_state([CPU]):
        torch.rand(2)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


def test_autocast_repeats_outside_its_block_and_is_left_as_it_was():
    x = torch.randn(4, 4, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        now = Circumstances.now([x.device])
        first = x @ x
    assert first.dtype == torch.bfloat16
    with now.again():
        assert torch.equal(x @ x, first)
    assert not torch.is_autocast_enabled("cpu")
    assert (x @ x).dtype == torch.float32


def test_what_ran_without_autocast_repeats_without_it_inside_a_block():
    x = torch.randn(4, 4, dtype=torch.float32)
    now = Circumstances.now([x.device])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with now.again():
            assert (x @ x).dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16


def test_autocast_to_another_type_repeats_in_that_type():
    x = torch.randn(4, 4, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.float16):
        now = Circumstances.now([x.device])
    with torch.autocast("cpu", dtype=torch.bfloat16), now.again():
        assert (x @ x).dtype == torch.float16


def test_casts_of_one_repetition_are_not_kept_for_the_next():
    x = torch.randn(4, 4, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        now = Circumstances.now([x.device])
        for scale in (1.0, 2.0):
            weight = nn.Parameter(torch.full((4, 4), scale))
            with now.again():
                found = x @ weight.float()
            assert torch.allclose(
                found[0, 0].float(), scale * x[0].sum(), rtol=0.05, atol=0.05
            )


@pytest.mark.parametrize("then", [True, False])
@pytest.mark.parametrize("later", [True, False])
def test_grad_mode_is_on_only_where_it_was_on_then_and_is_now(then, later):
    with torch.set_grad_enabled(then):
        now = Circumstances.now([])
    with torch.set_grad_enabled(later):
        with now.again():
            assert torch.is_grad_enabled() is (then and later)
        assert torch.is_grad_enabled() is later


def test_circumstances_nest():
    torch.manual_seed(0)
    outer = Circumstances.now([])
    a = torch.rand(2)
    inner = Circumstances.now([])
    b = torch.rand(2)
    with contextlib.ExitStack() as stack:
        stack.enter_context(outer.again())
        assert torch.equal(torch.rand(2), a)
        with inner.again():
            assert torch.equal(torch.rand(2), b)
        assert torch.equal(torch.rand(2), b)
