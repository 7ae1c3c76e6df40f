import gc
import weakref

import pytest
import torch

from l2l_evograd.updates.adjoint import Gate, Wanted, attached, constant_to_autograd

pytestmark = pytest.mark.usefixtures("float64")


def leaf(*numbers):
    return torch.tensor(numbers, requires_grad=True)


def doubled(sources, kept=(), gate=None, calls=None):
    """Return each source doubled, and three times its cotangent sent back."""

    def adjoint(direction, kept):
        if calls is not None:
            calls.append((direction, kept))
        return [3 * v for v in direction]

    values = [2 * s.detach() for s in sources]
    return attached(values, sources, adjoint, list(kept), gate or Gate())


def test_values_stand_on_the_graph_with_the_adjoint_given():
    a, b = leaf(1.0, 2.0), leaf(3.0)
    first, second = doubled([a * 5, b])
    assert torch.equal(first, torch.tensor([10.0, 20.0])) and first.requires_grad
    ((first * torch.tensor([1.0, 7.0])).sum() + second.sum()).backward()
    assert torch.equal(a.grad, torch.tensor([15.0, 105.0]))
    assert torch.equal(b.grad, torch.tensor([3.0]))


def test_the_adjoint_is_given_what_was_kept_and_zeros_for_what_is_not_used():
    a, b = leaf(1.0, 2.0), leaf(3.0)
    weight = torch.tensor(4.0)
    calls = []
    first, _ = doubled([a, b], [weight, b], calls=calls)
    first.sum().backward()
    ((direction, kept),) = calls
    assert torch.equal(direction[0], torch.ones(2))
    assert torch.equal(direction[1], torch.zeros(1))
    assert torch.equal(kept[0], weight) and kept[1] is b


def test_cotangents_may_be_missing():
    a, b = leaf(1.0), leaf(2.0)
    values = attached(
        [torch.ones(1)],
        [a, b],
        lambda direction, kept: [None, direction[0]],
        [],
        Gate(),
    )
    values[0].backward()
    assert a.grad is None and float(b.grad) == 1.0


def test_nothing_is_attached_to_sources_without_gradients():
    (value,) = doubled([torch.ones(2)])
    assert not value.requires_grad


def test_derivatives_stop_at_weights_that_are_held():
    a, b = leaf(1.0), leaf(2.0)
    weight = a * 5
    end = (weight * b).sum() + (weight * weight).sum()
    with Gate().held([weight]):
        held = torch.autograd.grad(end, [a, b], retain_graph=True, allow_unused=True)
    assert float(held[1]) == 5.0 and not held[0]
    free = torch.autograd.grad(end, [a, b])
    assert [float(t) for t in free] == [5 * (2 + 10), 5.0]


def test_a_gate_spares_the_adjoints_of_its_own_steps_while_it_is_shut():
    a = leaf(1.0)
    for gate, count in ((Gate(), 1), (None, 2)):
        calls = []
        (value,) = doubled([a], gate=gate, calls=calls)
        with (gate or Gate()).held([]):
            torch.autograd.grad(value, a, retain_graph=True, allow_unused=True)
        assert float(torch.autograd.grad(value, a)[0]) == 3.0
        assert len(calls) == count


def test_a_gate_opens_after_an_error_and_takes_its_hooks_away():
    a, gate = leaf(1.0), Gate()
    (value,) = doubled([a], gate=gate)
    with pytest.raises(KeyError), gate.held([value]):
        raise KeyError
    assert not gate.shut
    assert float(torch.autograd.grad(value, a)[0]) == 3.0


def test_backward_can_be_repeated_with_retain_graph_and_only_then():
    a = leaf(1.0)
    calls = []
    (value,) = doubled([a], [a], calls=calls)
    value.backward(retain_graph=True)
    value.backward()
    assert float(a.grad) == 6.0 and len(calls) == 2
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        value.backward()


@pytest.mark.parametrize("which", ["source", "constant"])
def test_what_is_kept_must_not_change_in_place_before_backward(which):
    a, constant = leaf(1.0), torch.ones(1)
    (value,) = doubled([a], [a, constant])
    with torch.no_grad():
        (a if which == "source" else constant).mul_(2)
    message = "weights, hyperparameters or another tensor .* changed in place before"
    with pytest.raises(RuntimeError, match=message) as caught:
        value.backward()
    assert "inplace operation" in str(caught.value.__cause__)


def test_an_adjoint_on_the_graph_can_be_differentiated_again():
    a = leaf(1.0)
    (value,) = doubled([a])
    (slope,) = torch.autograd.grad(value.square().sum(), a, create_graph=True)
    assert float(slope.detach()) == 3 * 2 * 2.0
    (second,) = torch.autograd.grad(slope, a)
    assert float(second) == 3 * 2 * 3.0


def test_what_is_constant_to_autograd_says_so_where_it_is_differentiated():
    a, found = leaf(1.0), [torch.ones(1), None, torch.ones(2)]
    guarded = constant_to_autograd(found, [a])
    assert guarded[1] is None and guarded[0].requires_grad
    assert torch.equal(guarded[0], found[0]) and torch.equal(guarded[2], found[2])
    with pytest.raises(RuntimeError, match="cannot be differentiated again.*exact"):
        (guarded[0] * a).sum().backward()
    with torch.no_grad():
        assert constant_to_autograd(found, [a])[0] is found[0]
    assert constant_to_autograd([None], [a]) == [None]


def test_an_error_of_the_adjoint_comes_through():
    def adjoint(direction, kept):
        raise KeyError("mine")

    (value,) = attached([torch.ones(1)], [leaf(1.0)], adjoint, [], Gate())
    with pytest.raises(KeyError, match="mine"):
        value.backward()


def test_what_was_kept_is_let_go_of_after_backward_and_with_the_graph():
    gc.collect()
    gc.disable()
    try:
        for backward in (True, False):
            a = leaf(1.0)
            kept = torch.ones(3)
            reference = weakref.ref(kept)
            (value,) = doubled([a], [kept])
            del kept
            assert reference() is not None
            if backward:
                value.backward()
            else:
                del value
            assert reference() is None
    finally:
        gc.enable()


def test_values_keep_their_shapes_and_types():
    a = torch.ones(2, dtype=torch.float32, requires_grad=True)
    b = torch.ones(2, 3, dtype=torch.complex128, requires_grad=True)
    calls = []
    first, second = doubled([a, b], calls=calls)
    assert first.dtype == torch.float32 and second.dtype == torch.complex128
    first.sum().backward()
    assert calls[0][0][1].shape == (2, 3)
    assert calls[0][0][1].dtype == torch.complex128


def test_nothing_is_wanted_unless_something_is():
    assert Wanted().nothing
    for some in ({"hyperparameters": [0]}, {"others": [1]}, {"curvature": True}):
        assert not Wanted(**some).nothing
