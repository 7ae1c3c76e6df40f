"""What is recorded of a computation, and for how long."""

import gc
import weakref

import pytest
import torch
from recorded import assert_same, program_of, variables
from torch import nn
from torch.nn import functional as F

from l2l_evograd.replay import tape
from l2l_evograd.replay.program import LostHistory, Program
from l2l_evograd.replay.tape import forget, is_recorded, reading_of
from l2l_evograd.replay.tensor import Recording
from l2l_evograd.replay.traits import traits_of

pytestmark = pytest.mark.usefixtures("float64")

aten = torch.ops.aten


def test_the_schema_of_a_call_says_what_it_does():
    assert traits_of(aten.add_.Tensor).writes == (0,)
    assert traits_of(aten.softmax.int_out).writes == ("out",)
    assert traits_of(aten._foreach_mul_.List).writes == (0,)
    assert traits_of(aten.native_batch_norm.default).unmarked == (3, 4)
    assert traits_of(aten.t.default).views and not traits_of(aten.mm.default).views
    assert traits_of(aten.bernoulli_.float).random
    assert traits_of(aten.native_dropout.default).random
    assert not traits_of(aten.mul.Tensor).random


def test_what_depends_on_something_that_requires_grad_is_recorded():
    (w,) = variables((4,))
    constant = torch.ones(4)
    with Recording():
        free = constant * 2
        product = w * free
        detached = product.detach()
        again = detached + 1
        with torch.no_grad():
            silent = w.exp()
    outside = w * 2
    assert not is_recorded(free) and not is_recorded(outside)
    assert all(map(is_recorded, (product, detached, again, silent)))
    assert reading_of(outside) is None and reading_of(product).lost is None
    forget(product)
    assert not is_recorded(product)


def test_nothing_is_recorded_in_inference_mode_and_once_where_recordings_nest():
    (w,) = variables((4,))
    with torch.inference_mode(), Recording() as record:
        value = w * 2
    assert not record.on and not is_recorded(value)
    with Recording() as outer:
        with Recording() as inner:
            value = w * 2
        after = value + 1
    assert outer.on and not inner.on
    assert is_recorded(value) and is_recorded(after)


def test_recording_ends_after_an_error():
    (w,) = variables((4,))
    with pytest.raises(KeyError), Recording():
        raise KeyError
    assert not is_recorded(w * 2)
    with Recording() as record:
        pass
    assert record.on


DRAWS = {
    "dropout": lambda w, g: F.dropout(w, 0.5),
    "alpha dropout": lambda w, g: F.alpha_dropout(w, 0.5, True),
    "rand_like": lambda w, g: w * torch.rand_like(w) + torch.randn_like(w),
    "bernoulli": lambda w, g: w * torch.bernoulli(w.sigmoid()),
    "bernoulli, own generator": lambda w, g: w * w.sigmoid().bernoulli(generator=g),
    "normal, own generator": lambda w, g: w * torch.normal(w, 1.0, generator=g),
    "multinomial": lambda w, g: w[torch.multinomial(w.exp(), 3, generator=g)],
    "numbers from elsewhere": lambda w, g: (
        w * torch.rand(8) + torch.rand(8, generator=g)
    ),
    "written": lambda w, g: (w * 1).uniform_(generator=g) * w,
    "gumbel": lambda w, g: F.gumbel_softmax(w, hard=True) * w,
    "rrelu": lambda w, g: F.rrelu(w, training=True),
}


@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("name", DRAWS)
def test_random_numbers_are_those_of_the_first_time(name, hold):
    old = variables((8,))
    generator = torch.Generator()

    def function(w):
        torch.manual_seed(3)
        generator.manual_seed(4)
        torch.rand(2), torch.rand(2, generator=generator)
        first = DRAWS[name](w, generator)
        return (first * DRAWS[name](w, generator)).sum()

    program, value = program_of(function, old, hold)
    torch.manual_seed(5)
    generator.manual_seed(6)
    states = torch.get_rng_state(), generator.get_state()
    (grad,) = torch.autograd.grad(program(old, []), old)
    assert torch.equal(program(old, []), value)
    assert torch.equal(states[0], torch.get_rng_state())
    assert torch.equal(states[1], generator.get_state())
    assert_same([grad], torch.autograd.grad(function(*old), old))


def test_statistics_that_a_call_writes_to_are_left_alone_by_replays():
    norm = nn.BatchNorm1d(3)
    old = variables((6, 3))
    program, value = program_of(
        lambda w: norm(w).square().mean() * norm(w * 2).sum(), old
    )
    kept = [buffer.clone() for buffer in norm.buffers()]
    for _ in range(2):
        assert torch.equal(program(old, program.inputs), value)
    assert all(map(torch.equal, norm.buffers(), kept))
    assert int(norm.num_batches_tracked) == 2


def test_statistics_that_are_read_are_those_of_the_time():
    norm = nn.BatchNorm1d(3).eval()
    old = variables((6, 3))
    program, value = program_of(lambda w: norm(w).square().mean(), old)
    norm.train()(torch.randn(6, 3))
    assert torch.equal(program(old, program.inputs), value)


class Counter(nn.Module):
    """Reads a buffer and writes to it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.ones(4))

    def forward(self, x):
        x = x * self.count
        self.count += 1
        return x + self.count * x


@pytest.mark.parametrize("known", [True, False])
def test_buffers_are_copied_before_they_are_written_to(known):
    module, old = Counter(), variables((4,))
    buffers = list(module.buffers()) if known else []

    def function(w):
        return module(module(w)).sum()

    if not known:
        program, _ = program_of(function, old)
        with pytest.raises(RuntimeError, match="register_buffer"):
            program(old, [])
        return
    program, value = program_of(function, old, buffers=buffers)
    module.count.fill_(7)
    assert torch.equal(program(old, []), value)
    assert_same(torch.autograd.grad(program(old, []), old), [torch.full((4,), 3.0 * 8)])


def test_a_write_that_was_not_recorded_is_noticed():
    (w,) = variables((4,))
    with Recording():
        out = w * 2
        out.sum()
    out += 1
    with Recording():
        loss = out.sum()
    with pytest.raises(LostHistory, match="written to in place in a way that was not"):
        Program(loss, [w], hold=True)


def test_a_weight_changed_without_gradients_is_no_part_of_the_record():
    (w,) = variables((4,))
    with Recording():
        with torch.no_grad():
            w.mul_(2)
        loss = w.square().sum()
    program = Program(loss, [w], hold=True)
    assert torch.equal(program([w], []), loss)


def test_a_write_to_memory_laid_out_in_another_way_is_followed():
    old, new = variables((2, 2)), variables((2, 2), seed=1)

    def function(w):
        buffer = torch.zeros(3, 2).t()  # its columns are next to each other
        corner = buffer[:, 1:]
        corner += w
        return (buffer.square() * torch.arange(6).view(2, 3)).sum() + corner.prod()

    program, value = program_of(function, old)
    assert torch.equal(program(old, []), value)
    assert_same([program(new, [])], [function(*new)])


def test_a_write_to_memory_that_begins_elsewhere_is_followed():
    old = variables((2, 2))

    def function(w):
        buffer = torch.zeros(10, 2)[2:6].detach()
        half = buffer[2:4]
        half += w
        return buffer.square().sum() + half.prod()

    program, value = program_of(function, old)
    assert torch.equal(program(old, []), value)


def test_a_write_to_memory_with_gaps_asks_for_another_way():
    def function(w):
        buffer = torch.empty_strided((4, 2), (3, 1)).zero_()
        buffer += w
        return buffer.square().sum()

    with pytest.raises(LostHistory):
        program_of(function, variables((4, 2)))


def test_a_record_lives_as_long_as_what_was_computed():
    (w,) = variables((4,))
    gc.collect()
    gc.disable()
    try:
        with Recording():
            hidden = w * 2
            view = hidden[:2]
            view.mul_(2)
            loss = hidden.sum()
        calls = [weakref.ref(t) for t in (hidden, view, loss)]
        program = Program(loss, [w], hold=True)
        del hidden, view, loss
        assert [ref() for ref in calls] == [None] * 3
        program([w], [])
        del program
    finally:
        gc.enable()


def test_nothing_is_left_behind_by_many_recordings():
    old = variables((4,))

    def function(w):
        losses = torch.zeros(3)
        for i in range(3):
            losses[i] = (w * i).sum().tanh()
        return losses.sum() * losses.detach().mean()

    def once():
        program, _ = program_of(function, old)
        torch.autograd.grad(program(old, []), old)

    def tensors():
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    once()
    gc.collect()
    gc.disable()
    try:
        entries = len(tape.entries)
        before = tensors()
        for _ in range(20):
            once()
        assert len(tape.entries) == entries
        assert tensors() <= before
    finally:
        gc.enable()
