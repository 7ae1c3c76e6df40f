"""Tensors whose functions are recorded, and which behave as any others."""

import copy
import pickle
import threading
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from recorded import variables
from torch import nn
from torch.distributions import Normal
from torch.nn import functional as F

from l2l_evograd.replay.program import Program
from l2l_evograd.replay.tape import is_recorded
from l2l_evograd.replay.tensor import (
    Recording,
    TapedTensor,
    begin_tape,
    is_recording,
    ordinary_functions,
    plain,
    tape_attributes,
    taped,
)

pytestmark = pytest.mark.usefixtures("float64")


def begun(follows=False):
    (w,) = variables((4, 3))
    return w, begin_tape(w * 1, follows)


def test_plain_keeps_the_graph_and_the_memory():
    w, tape = begun()
    bare = plain(tape)
    assert isinstance(tape, TapedTensor) and type(bare) is torch.Tensor
    assert bare.requires_grad and bare.data_ptr() == tape.data_ptr()
    assert plain(bare) is bare and plain(w) is w
    assert begin_tape(w, True)._follows and not tape._follows


def test_functions_of_a_taped_tensor_are_recorded_and_give_taped_tensors():
    _, tape = begun()
    hidden = F.linear(torch.ones(2, 3), tape).relu() + 1
    loss = (hidden * tape.T[:2, :1]).mean()
    assert isinstance(hidden, TapedTensor) and isinstance(loss, TapedTensor)
    program = Program(loss, [tape], hold=True)
    with ordinary_functions():
        assert torch.equal(program([tape], []), loss)
    assert program.used == {0} and program.inputs == []


@pytest.mark.parametrize("follows", [False, True])
def test_what_has_no_gradient_is_followed_only_where_it_is_asked_for(follows):
    _, tape = begun(follows)
    places = tape.argmax(1)
    weights = tape.detach().exp()
    with torch.no_grad():
        silent = tape * 2
    for result in (places, weights, silent):
        assert isinstance(result, TapedTensor) is follows
        assert is_recorded(result) is follows or result is places
    assert isinstance((tape * weights).sum(), TapedTensor)


def test_numbers_shapes_and_flags_are_as_of_any_tensor():
    _, tape = begun()
    assert tape.shape == (4, 3) and tape.ndim == 2 and len(tape) == 4
    assert tape.dtype == torch.float64 and tape.requires_grad and not tape.is_leaf
    assert tape.sum().item() == plain(tape).sum().item()
    assert isinstance(tape.detach().tolist(), list)
    assert repr(tape) == repr(plain(tape)) and "Taped" not in repr(tape)
    assert f"{tape.mean():.3f}" == f"{plain(tape).mean():.3f}"


def test_copies_and_pickles_are_ordinary_tensors():
    _, tape = begun(follows=True)
    values = tape.detach() * 1
    assert isinstance(values, TapedTensor)
    for again in (pickle.loads(pickle.dumps(values)), copy.deepcopy(values)):
        assert type(again) is torch.Tensor and torch.equal(again, plain(values))


def test_gradients_are_ordinary_tensors():
    w, tape = begun()
    tape.retain_grad()
    tape.square().sum().backward()
    assert type(w.grad) is torch.Tensor and type(tape.grad) is torch.Tensor
    assert torch.equal(w.grad, 2 * w)


Pair = namedtuple("Pair", ["left", "right"])


@dataclass
class Output:
    logits: torch.Tensor
    more: dict


def test_results_in_containers_of_every_kind_are_taped():
    _, tape = begun()
    with Recording():
        a, b, c, d, e, f, g = (plain(tape) * k for k in range(7))
        constant = torch.ones(3)
    results = [a, (b, {"c": c}), Pair(d, None), Output(e, {"f": [f]}), Normal(g, 1.0)]
    assert taped(results, False) is results
    assert {type(t) for t in (a, b, c, d, e, f, g)} == {TapedTensor}
    taped([constant, 3, "x", None, nn.Linear(1, 1)], False)
    assert type(constant) is torch.Tensor


def test_tensors_that_a_call_left_on_a_module_are_taped():
    _, tape = begun()
    module = nn.Sequential(nn.Linear(1, 1))
    with Recording():
        module[0].kept, module.listed = plain(tape) * 2, [plain(tape) * 3]
    module.other = torch.ones(2)
    tape_attributes(module, False)
    assert isinstance(module[0].kept, TapedTensor)
    assert isinstance(module.listed[0], TapedTensor)
    assert type(module.other) is torch.Tensor
    assert type(module[0].weight) is nn.Parameter


def test_a_fresh_tensor_that_was_written_to_is_taped_from_then_on():
    _, tape = begun()
    losses = torch.zeros(2)
    losses[0] = tape.sum()
    total = torch.zeros(4)
    half = total[:2]
    half += tape[:2, 0]
    for tensor in (losses, total, half):
        assert isinstance(tensor, TapedTensor) and tensor.requires_grad


def test_inside_a_recording_the_class_does_nothing():
    _, tape = begun()
    assert not is_recording()
    with Recording():
        assert is_recording()
        inside = tape * 2
    assert type(inside) is torch.Tensor and is_recorded(inside)
    assert not is_recording()


def test_transforms_of_functions_are_left_alone():
    w, tape = begun()
    found = torch.func.grad(lambda t: (t * tape).sum())(torch.ones(4, 3))
    assert torch.equal(plain(found), plain(tape))
    rows = torch.func.vmap(lambda row: row.sum())(tape)
    assert torch.equal(plain(rows), w.sum(1))


def test_recorders_of_different_threads_do_not_meet():
    seen = []
    with Recording():
        thread = threading.Thread(target=lambda: seen.append(is_recording()))
        thread.start()
        thread.join()
    assert seen == [False]
