"""The inner loss as a function, and the check of whether it is the right one."""

import pytest
import torch
from marked import Square
from recorded import assert_same, variables
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes

from l2l_evograd.replay.inner_loss import (
    InnerLoss,
    Unrepeatable,
    check_same,
    digest,
    gradient,
)
from l2l_evograd.replay.program import LostHistory
from l2l_evograd.replay.tensor import Recording

pytestmark = pytest.mark.usefixtures("float64")

LAM = torch.tensor([0.5, -0.3, 1.2], dtype=torch.float64, requires_grad=True)


def weighted(w, v, lam=LAM):
    return (torch.sigmoid(lam) * (w.tanh() @ v).square()).mean()


def problem(function=weighted, hold=True):
    params = variables((3, 4), (4,))
    with Recording():
        value = function(*params)
    return InnerLoss(value, params, hold), value, params


def detached(params):
    return [p.detach() for p in params]


def check(function):
    """Compare the loss and its derivatives with their repetition, as a step does."""
    loss, value, params = problem(function)
    found = torch.autograd.grad(value, [*params, *loss.inputs], allow_unused=True)
    slopes, others = found[: len(params)], found[len(params) :]
    loss.check(value, detached(params), slopes, list(enumerate(others)))


def test_a_loss_can_be_evaluated_anywhere_with_twins_of_its_inputs():
    loss, value, params = problem()
    assert len(loss.inputs) == 1 and loss.inputs[0] is LAM
    assert loss.leaves[0] is not LAM and loss.leaves[0].is_leaf
    other = variables((3, 4), (4,), seed=1)
    again = loss(other)
    expected = weighted(*other)
    assert_same([again], [expected])
    assert_same(
        torch.autograd.grad(again, [*other, loss.leaves[0]]),
        torch.autograd.grad(expected, [*other, LAM]),
    )


@pytest.mark.parametrize("params_too", [False, True])
def test_gradients_are_those_wanted(params_too):
    loss, value, params = problem()
    found, slopes, grads = loss.gradients(detached(params), None, params_too)
    expected = torch.autograd.grad(value, [*params, LAM])
    assert torch.equal(found, value) and not found.requires_grad
    assert_same(slopes, expected[:-1] if params_too else [])
    assert_same(grads, expected[-1:])
    assert loss.gradients(detached(params), [], params_too)[2] == []
    assert LAM.grad is None and params[0].grad is None


def test_without_the_weights_no_graph_is_built_for_them():
    seen = []

    def function(w, v):
        hidden = w.exp()
        return (LAM * (hidden @ v)).mean()

    loss, _, params = problem(function)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: seen.append(t.shape) or t, lambda t: t
    ):
        loss.gradients(detached(params))
        assert torch.Size([3, 4]) not in seen
        loss.gradients(detached(params), params_too=True)
        assert torch.Size([3, 4]) in seen


def test_slopes_can_be_differentiated_again():
    loss, value, params = problem()
    weights = [p.detach().requires_grad_() for p in params]
    slopes = loss.slopes(weights)
    expected = torch.autograd.grad(weighted(*params), params, create_graph=True)
    assert_same([s.detach() for s in slopes], [s.detach() for s in expected])
    mixed = torch.autograd.grad(sum(s.sum() for s in slopes), loss.leaves)
    assert_same(mixed, torch.autograd.grad(sum(s.sum() for s in expected), LAM))


def test_kernels_that_are_once_differentiable_say_what_to_do():
    def function(w, v):
        q = w.view(1, 1, 3, 4)
        return F.scaled_dot_product_attention(q, q, q * v).square().mean()

    loss, _, params = problem(function)
    loss.gradients(detached(params), params_too=True)
    with pytest.raises(RuntimeError, match=r"differentiated twice.*first_order=True"):
        loss.slopes([p.detach().requires_grad_() for p in params])


def test_a_loss_that_does_not_use_the_weights_is_refused():
    with pytest.raises(ValueError, match="does not depend on the learner's present"):
        problem(lambda w, v: LAM.sum() * 2)


def test_a_loss_of_nothing_recorded_is_refused():
    with pytest.raises(LostHistory, match="its computation was not recorded"):
        problem(lambda w, v: torch.ones((), requires_grad=True))


def test_a_loss_that_repeats_itself_passes():
    check(weighted)
    check(lambda w, v: F.dropout(w, 0.5).sum() * v.detach().sum())
    check(lambda w, v: w[0].sum())  # no gradient for v
    check(lambda w, v: (w[0] * LAM.detach().mean()).sum() + 0 * LAM.sum())


def test_a_write_through_data_is_refused_where_constants_are_held():
    def function(w, v):
        hidden = w * 2
        hidden.data.mul_(3)
        return hidden.sum() + v.sum()

    with pytest.raises(LostHistory, match="without autograd recording.*detach"):
        check(function)


def with_a_hook_on_a_tensor(w, v):
    hidden = w * 2
    hidden.register_hook(lambda grad: grad * 3)
    return hidden.square().mean()


def with_a_hook_behind_lambda(w, v):
    weights = torch.sigmoid(LAM)
    weights.register_hook(torch.zeros_like)
    return (weights * (w @ v)).mean()


@pytest.mark.parametrize(
    "function", [with_a_hook_on_a_tensor, with_a_hook_behind_lambda]
)
def test_hooks_on_tensors_on_the_way_are_found_before_they_are_repeated(function):
    with pytest.raises(LostHistory, match="a hook on one of its tensors"):
        check(function)


def written_through_data(w, v):
    hidden = w * 2
    with _disable_current_modes():  # as outside of a recording
        hidden.data.mul_(3)
    return hidden.sum() + v.sum()


def written_through_numpy(w, v):
    hidden = w * 2
    hidden.detach().numpy()[:] = 5
    return hidden.sum() + v.sum()


def a_constant_written_through_numpy(w, v):
    constant = torch.ones(4)
    loss = (w * constant).sum()
    constant.numpy()[:] = 5
    return loss


def with_a_hook_on_an_input(w, v):
    lam = torch.ones(3, requires_grad=True)
    lam.register_hook(torch.zeros_like)
    return (lam * (w @ v)).mean()


def with_a_hook_on_a_weight(w, v):
    w.register_hook(torch.zeros_like)
    return w.square().mean()


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (with_a_hook_on_an_input, "its derivative with respect to the hyperparam"),
        (with_a_hook_on_a_weight, "its gradient"),
        (written_through_data, "its value"),
        (written_through_numpy, "its value"),
        (a_constant_written_through_numpy, "its value"),
    ],
)
def test_the_check_finds_what_was_not_recorded(function, what):
    message = rf"cannot be repeated: .* {what}.* is .*hook on.*\.data.*check='never'"
    with pytest.raises(Unrepeatable, match=message):
        check(function)


@pytest.mark.parametrize("part", [False, True])
def test_a_custom_function_is_found_before_it_is_repeated(part):
    def function(w, v):
        squares = Square.apply(w)
        return squares.mean() + (w @ v).sum() if part else squares.mean()

    with pytest.raises(LostHistory, match=r"custom torch\.autograd\.Function"):
        check(function)


def test_rounding_is_no_difference_and_half_of_the_digits_are():
    first = [torch.ones(3), torch.ones(2, dtype=torch.float32)]
    check_same("it", first, [t * (1 + 1e-5) for t in first])
    with pytest.raises(Unrepeatable, match="it is 2.2383 where it was 2.23607"):
        check_same("it", first, [t * 1.001 for t in first])
    double = [torch.ones(3)]
    check_same("it", double, [t * (1 + 1e-9) for t in double])
    with pytest.raises(Unrepeatable):
        check_same("it", double, [t * (1 + 1e-6) for t in double])
    check_same("it", [torch.zeros(2)], [torch.zeros(2)])
    check_same("it", [], [])
    with pytest.raises(Unrepeatable):
        check_same("it", double, [torch.full((3,), torch.nan)])
    not_finite = [torch.full((3,), torch.inf)]
    check_same("it", not_finite, not_finite)


def test_gradients_of_what_is_not_reached_are_zero():
    a, b = variables((2,), (3,))
    found = gradient((a * 2).sum(), [a, b])
    assert_same(found, [torch.full((2,), 2.0), torch.zeros(3)])
    assert_same(gradient(torch.ones(()), [b]), [torch.zeros(3)])
    assert gradient(a.sum(), []) == []
    (slope,) = gradient(a.square().sum(), [a], create_graph=True)
    assert slope.requires_grad


def test_a_digest_tells_gradients_apart():
    first = [*variables((3, 4), (5,)), torch.zeros(0), torch.ones(())]
    same = digest([t.clone() for t in first])
    assert torch.equal(digest(first), same) and same.numel() <= 3 * len(first)
    check_same("it", [digest(first)], [digest([t * (1 + 1e-12) for t in first])])
    others = [
        [first[0], -first[1], *first[2:]],
        [first[0], first[1] * 1.001, *first[2:]],
        [first[0].flip(1), *first[1:]],
        [torch.zeros_like(first[0]), *first[1:]],
    ]
    for other in others:
        with pytest.raises(Unrepeatable):
            check_same("it", [digest(first)], [digest(other)])
