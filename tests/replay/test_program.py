"""A record, repeated at other weights, is the function that was recorded."""

import weakref

import pytest
import torch
from marked import Square
from recorded import assert_same, both_derivatives, program_of, variables
from small_functions import CASES, WITH_KINKS
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from l2l_evograd.replay.program import LostHistory

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("function", CASES, ids=lambda f: f.__name__)
def test_a_program_is_the_function_recorded_and_so_are_its_derivatives(function, hold):
    old, new = variables((4, 4), (4,)), variables((4, 4), (4,), seed=1)
    program, value = program_of(function, old, hold)
    assert program.inputs == [] and program.used == {0, 1}
    assert torch.equal(program(old, []), value)
    points = [old, old] if hold and function in WITH_KINKS else [new, old, new]
    for point in points:  # as often as one likes
        found = both_derivatives(program(point, []), point)
        assert_same(found, both_derivatives(function(*point), point))


def test_what_is_constant_to_autograd_is_held_or_computed_again():
    def function(w, v):
        weights = w.detach().softmax(0)
        with torch.no_grad():
            target = v.exp()
            target *= 2
        return (weights * (w - target)).sum()

    old, new = variables((4,), (4,)), variables((4,), (4,), seed=1)
    program, _ = program_of(function, old, hold=False)
    assert_same([program(new, [])], [function(*new)])
    program, _ = program_of(function, old, hold=True)
    held = (old[0].detach().softmax(0) * (new[0] - 2 * old[1].detach().exp())).sum()
    assert_same([program(new, [])], [held])


def test_a_constant_that_was_made_a_leaf_is_held_too():
    (old,), (new,) = variables((4,)), variables((4,), seed=1)

    def function(w):
        features = w.detach().requires_grad_()
        return (features * w).sum()

    program, _ = program_of(function, [old], hold=True)
    found = program([new], program.inputs)  # one that requires grad
    assert_same([found], [(old.detach() * new).sum()])


def test_a_held_constant_is_kept_as_it_was_before_it_was_overwritten():
    old, (new,) = variables((4,)), variables((4,), seed=1)

    def function(w):
        weights = w.detach() * 2
        first = (weights * w).sum()
        weights += 1
        second = (weights * w).sum()
        weights.zero_()
        return first + 3 * second

    # Autograd itself refuses the product's own backward pass, not that of the program.
    program, _ = program_of(function, old)
    weights = old[0].detach() * 2
    value = program([new], [])
    assert_same([value], [(weights * new).sum() + 3 * ((weights + 1) * new).sum()])
    assert_same(torch.autograd.grad(value, new), [weights + 3 * (weights + 1)])


def test_what_requires_grad_besides_the_variables_is_an_input_each_once():
    (w,) = variables((4,))
    lam, body = torch.tensor(2.0, requires_grad=True), nn.Linear(4, 4)
    x = torch.ones(4)
    features = body(x)
    program, _ = program_of(lambda w: (lam * w * features).sum() * lam, [w])
    assert [id(t) for t in program.inputs] == [id(lam), id(features)]
    other = [torch.tensor(3.0), torch.arange(4.0)]
    assert_same([program([w], other)], [(9 * w * other[1]).sum()])
    # The program ends there: no derivative reaches into the graph of the caller.
    twins = [t.detach().requires_grad_() for t in program.inputs]
    assert len(torch.autograd.grad(program([w], twins), twins)) == 2
    assert body.weight.grad is None


def test_what_is_computed_from_inputs_while_recording_is_part_of_the_program():
    (w,) = variables((4,))
    lam = torch.tensor(0.5, requires_grad=True)
    program, _ = program_of(lambda w: (lam.exp() * w).sum(), [w])
    assert program.inputs == [lam]
    assert_same([program([w], [torch.tensor(1.0)])], [(torch.e * w).sum()])


def test_variables_that_do_not_occur_are_not_used():
    w, v, u = variables((4,), (4,), (4,))
    program, _ = program_of(lambda w, v, u: w.sum() * u.sum(), [w, v, u])
    assert program.used == {0, 2}
    with pytest.raises(LostHistory, match="its computation was not recorded"):
        program_of(lambda w: torch.ones(()), [w])


def test_behind_stops_at_all_that_does_not_depend_on_the_variables():
    w, lam = variables((4, 4), (4,))

    def function(w, lam):
        losses = (w @ w).square().mean(0)
        weights = torch.sigmoid(lam + losses.detach())
        return (weights * losses).mean()

    with_lam = {"behind": True, "marked": [lam]}
    program, value = program_of(lambda lam: function(w, lam), [lam], **with_lam)
    (losses,) = program.inputs
    assert losses.shape == (4,) and losses.grad_fn is not None
    (other,) = variables((4,), seed=1)
    again = program([other], program.inputs)
    expected = function(w, other)
    assert_same([again], [expected])
    # On the graph that was kept: the weights get their gradient through it.
    found = torch.autograd.grad(again, [other, w], retain_graph=True)
    assert_same(found, torch.autograd.grad(expected, [other, w]))


def test_gradients_are_off_where_they_were_and_only_there():
    (w,) = variables((4,))
    program, _ = program_of(lambda w: (w * 2).sum(), [w])
    with torch.no_grad():
        assert not program([w], []).requires_grad
    assert program([w], []).requires_grad


def test_autocast_is_as_when_it_was_recorded():
    w = torch.randn(4, 4, dtype=torch.float32).requires_grad_()
    x = torch.randn(4, 4, dtype=torch.float32)

    def cast(w):
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
            out = x @ w
        assert out.dtype == torch.bfloat16
        return (out.float() @ w).mean()

    program, value = program_of(cast, [w])
    assert torch.equal(program([w], []), value)
    other = torch.randn_like(w)
    for point in (other, 2 * other):  # casts of one repetition are not the next one's
        assert torch.equal(program([point], []), cast(point))
    program, value = program_of(lambda w: (x @ w).mean(), [w])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(program([w], []), value)


@pytest.mark.parametrize("changed", ["constant", "input"])
def test_what_was_read_must_not_change_in_place(changed):
    (w,) = variables((4,))
    constant, given = torch.ones(4), torch.ones(4, requires_grad=True) * 1
    program, value = program_of(lambda w: (w * constant * given).sum(), [w])
    with torch.no_grad():
        (constant if changed == "constant" else given).mul_(2)
    if changed == "constant":
        with pytest.raises(RuntimeError, match=r"shape \(4,\).*changed in place after"):
            program([w], [given])
    else:
        program([w], [given])  # an input is given anew


def test_an_input_that_changed_before_the_program_was_made_is_refused():
    (w,) = variables((4,))
    given = torch.ones(4, requires_grad=True) * 1

    def function(w):
        loss = (w + given).sum()
        given.mul_(2)
        return loss

    with pytest.raises(RuntimeError, match=r"shape \(4,\).*changed in place after"):
        program_of(function, [w])


def test_an_input_that_is_written_to_asks_for_another_way():
    (w,) = variables((4,))
    given = torch.ones(4, requires_grad=True) * 1

    def function(w):
        given.mul_(w)
        return given.sum()

    with pytest.raises(LostHistory, match="to a tensor from outside that requires gr"):
        program_of(function, [w])


def test_a_computation_that_is_hidden_asks_for_another_way():
    (w,) = variables((4,))
    with pytest.raises(
        LostHistory, match=r"custom torch.autograd.Function.*estimator="
    ):
        program_of(lambda w: Square.apply(w).sum(), [w])


def test_an_input_that_was_computed_from_the_variables_is_refused():
    (w,) = variables((4,))
    before = w * 2
    with pytest.raises(LostHistory, match="depends on the weights in a way that was"):
        program_of(lambda w: (w * before).sum(), [w])


def test_what_is_finished_is_let_go_of_during_a_replay():
    living, most = weakref.WeakSet(), []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                living.add(result)
                most.append(len(living))
            return result

    def function(w):
        for _ in range(20):
            w = w + 1
        return w.sum()

    program, _ = program_of(function, variables((4,)))
    with torch.no_grad(), Watch():
        program(variables((4,)), [])
    assert max(most) <= 3
