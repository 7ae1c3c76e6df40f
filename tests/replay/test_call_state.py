import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from l2l_evograd.replay.call_state import (
    RandomState,
    TwiceDifferentiable,
    preserved_random_state,
    random_state,
    without_autocast,
)

pytestmark = pytest.mark.usefixtures("float64")

CPU = torch.device("cpu")


def now():
    return RandomState(CPU, random_state(CPU))


def test_dropout_repeats_and_the_random_state_comes_back():
    torch.manual_seed(3)
    state = now()
    x = torch.ones(50)
    first = F.dropout(x)
    between = torch.get_rng_state()
    for _ in range(2):
        with state.again():
            assert torch.equal(F.dropout(x), first)
        assert torch.equal(torch.get_rng_state(), between)


def test_the_random_state_comes_back_after_an_error():
    state = now()
    torch.manual_seed(8)
    before = torch.get_rng_state()
    with pytest.raises(KeyError), state.again():
        torch.rand(2)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(KeyError), preserved_random_state([CPU]):
        torch.rand(2)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


def test_random_states_nest():
    torch.manual_seed(0)
    outer = now()
    a = torch.rand(2)
    inner = now()
    b = torch.rand(2)
    with outer.again():
        assert torch.equal(torch.rand(2), a)
        with inner.again():
            assert torch.equal(torch.rand(2), b)
        assert torch.equal(torch.rand(2), b)


def test_a_call_draws_from_its_generator_or_from_that_of_its_device():
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(6)
    x = torch.ones(8)
    own = RandomState.of((x,), {"generator": generator})
    positional = RandomState.of((x, 0.5, generator), {})
    everyones = RandomState.of((x, 0.5), {"generator": None})
    assert torch.equal(own.state, generator.get_state())
    assert torch.equal(positional.state, generator.get_state())
    assert torch.equal(everyones.state, torch.get_rng_state())
    expected = torch.rand(8, generator=generator)
    with own.again():
        assert torch.equal(torch.rand(8), expected)


def test_nothing_is_cast_that_was_cast_when_it_was_recorded():
    x = torch.randn(4, 4, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with without_autocast([CPU]):
            assert (x @ x).dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16
    with without_autocast([CPU, torch.device("meta")]):
        assert (x @ x).dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")


def kernels():
    backends = torch.backends.cuda
    return (
        backends.flash_sdp_enabled(),
        backends.mem_efficient_sdp_enabled(),
        backends.cudnn_sdp_enabled(),
        backends.math_sdp_enabled(),
        torch.backends.cudnn.enabled,
        torch.backends.cudnn.benchmark,
    )


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_kernels_that_are_once_differentiable_are_off_inside_and_nowhere_else(
    recurrent, fails
):
    before = kernels()
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    chosen = kernels()
    try:
        with TwiceDifferentiable(recurrent):
            assert kernels()[:4] == (False, False, False, True)
            assert kernels()[4] is (before[4] and not recurrent)
            assert kernels()[5] == before[5]
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert kernels() == chosen
    torch.backends.cuda.enable_mem_efficient_sdp(before[1])
    assert kernels() == before


def test_attention_inside_can_be_differentiated_twice():
    q = torch.randn(1, 2, 3, 4, requires_grad=True)
    with TwiceDifferentiable(recurrent=False):
        value = F.scaled_dot_product_attention(q, q, q).square().sum()
    (slope,) = torch.autograd.grad(value, q, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), q)
    assert bool(second.abs().sum() > 0)


@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_what_is_compiled_runs_as_it_was_written_inside():
    compiled = torch.compile(lambda x: x.sin() * 2, backend="aot_eager")
    x = nn.Parameter(torch.randn(4))
    assert "CompiledFunction" in compiled(x).grad_fn.name()
    with TwiceDifferentiable(recurrent=False):
        assert "CompiledFunction" not in compiled(x).grad_fn.name()
    assert "CompiledFunction" in compiled(x).grad_fn.name()


def test_threads_that_overlap_leave_the_kernels_as_they_were():
    flash = torch.backends.cuda.flash_sdp_enabled
    before, cudnn = flash(), torch.backends.cudnn.enabled
    entered, may_leave = threading.Event(), threading.Event()

    def longer():
        with TwiceDifferentiable(recurrent=True):
            entered.set()
            may_leave.wait(60)

    thread = threading.Thread(target=longer)
    with TwiceDifferentiable(recurrent=True):
        thread.start()
        assert entered.wait(60)
    assert not flash() and not torch.backends.cudnn.enabled  # the other needs them off
    may_leave.set()
    thread.join()
    assert flash() == before and torch.backends.cudnn.enabled == cudnn
