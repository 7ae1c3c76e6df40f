import pytest
import torch
from marked import FusedSquare, Square
from torch import nn
from torch.utils.checkpoint import checkpoint

from l2l_evograd.replay.autograd_graph import (
    differentiable_again,
    functions_behind,
    graph_bytes,
    hands_out_saved_tensors,
    is_compiled,
    reached_from,
    reaches,
)

pytestmark = pytest.mark.usefixtures("float64")


def leaf(*shape):
    return torch.ones(shape, requires_grad=True)


def test_a_graph_reaches_leaves_and_what_was_computed_from_them():
    a, b, unused = leaf(3), leaf(3), leaf(3)
    middle = a * 2
    beside = a * 2
    end = (middle + b).sum()
    found = reaches(end, [a, b, middle, unused, beside, end, torch.ones(3)])
    assert found == [True, True, True, False, False, True, False]
    assert reaches(a, [a, b]) == [True, False]
    assert reaches(torch.ones(1), [a]) == [False]


def test_what_was_cut_off_or_computed_without_gradients_is_not_reached():
    a, b, c = leaf(3), leaf(3), leaf(3)
    with torch.no_grad():
        silent = b * 2
    end = (a + silent + (c * 2).detach()).sum()
    assert reaches(end, [a, b, c]) == [True, False, False]


def test_several_tensors_are_walked_together():
    a, b, c = leaf(1), leaf(1), leaf(1)
    assert reached_from([a * 2, b + 1, torch.ones(1)], [a, b, c]) == [True, True, False]
    assert reached_from([], [a]) == [False]


def test_each_function_is_found_once_also_behind_a_long_graph():
    a = leaf(1)
    end = a
    for _ in range(3000):  # deeper than Python may recurse
        end = end * a
    assert len(functions_behind([end, end])) == 3001
    assert reaches(end, [a]) == [True]


def test_the_bytes_of_a_graph_are_those_of_its_results_each_once():
    a = leaf(10, 4)
    hidden = a * 2
    out = hidden.sum(1)
    assert graph_bytes([out]) == 8 * (40 + 10)
    assert graph_bytes([out, hidden, out]) == 8 * (40 + 10)
    assert graph_bytes([out], [hidden, a]) == graph_bytes([out]) - graph_bytes([hidden])
    assert graph_bytes([a, torch.ones(3)]) == 0
    single = torch.ones(6, dtype=torch.float32, requires_grad=True).exp()
    assert graph_bytes([single]) == 4 * 6
    first, second = out.split(5)
    assert graph_bytes([first, second]) == 8 * (40 + 10 + 5 + 5)


def test_a_second_order_graph_is_larger_than_the_first():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    loss = model(torch.ones(5, 4)).mean()
    slopes = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    assert graph_bytes(slopes) > graph_bytes([loss]) > 0


@pytest.mark.parametrize("whole", [True, False])
def test_activation_checkpoints_are_noticed(whole):
    layer, head = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 1)
    x = torch.ones(2, 4)
    assert not hands_out_saved_tensors([head(layer(x)).mean()])
    hidden = checkpoint(layer, x, use_reentrant=False)
    assert hands_out_saved_tensors([hidden.mean() if whole else head(hidden).mean()])
    assert not hands_out_saved_tensors([torch.ones(1)])


def test_hooks_that_look_after_saved_tensors_are_noticed():
    a = leaf(3)
    with torch.autograd.graph.save_on_cpu():
        kept = a.exp()
    assert hands_out_saved_tensors([kept * 2])
    assert not hands_out_saved_tensors([a.exp() * 2])


def test_only_tensors_in_the_graph_are_looked_at_for_hooks():
    a = leaf(3)
    a.register_hook(lambda grad: grad)
    assert not hands_out_saved_tensors([Square.apply(a.exp()).sum()])


@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_compiled_functions_are_noticed():
    a = leaf(3)
    compiled = torch.compile(lambda x: x.sin() * 2, backend="aot_eager")
    assert is_compiled(compiled(a).sum())
    assert not is_compiled(a.sin().sum())


def test_gradients_without_a_derivative_are_noticed():
    a = leaf(3)
    for function, expected in ((FusedSquare.apply, False), (torch.square, True)):
        (slope,) = torch.autograd.grad(function(a).norm(), a, create_graph=True)
        assert differentiable_again([slope]) is expected


def test_a_graph_that_was_freed_hands_out_nothing():
    for function in (Square.apply, torch.exp):
        a = torch.randn(3, requires_grad=True)
        kept = function(a)
        kept.sum().backward()
        assert not hands_out_saved_tensors([kept * 2])
