import copy
from collections import OrderedDict

import pytest
import torch
from by_hand import largest_gap
from entangled import (
    Entangled,
    assert_same_snapshot,
    fresh,
    snapshot,
    tensors_of,
)
from torch import nn

from l2l_evograd.replay.module_copy import copy_structure, exchange

pytestmark = pytest.mark.usefixtures("float64")


def test_a_copy_shares_tensors_and_nothing_else():
    module = Entangled()
    copied = copy_structure(module)
    originals, copies = list(module.modules()), list(copied.modules())
    assert [type(m) for m in originals] == [type(m) for m in copies]
    assert not {id(m) for m in originals} & {id(m) for m in copies}
    assert all(
        a is b for a, b in zip(tensors_of(module), tensors_of(copied), strict=True)
    )
    for one, other in zip(originals, copies, strict=True):
        for key, value in vars(one).items():
            if isinstance(value, dict | list):
                assert vars(other)[key] is not value, key


def test_references_to_submodules_lead_to_their_copies():
    copied = copy_structure(Entangled())
    assert copied.same is copied.first
    assert copied.path[0] is copied.first and copied.path[2] == (copied.second,)
    assert copied.table["a"] is copied.first
    assert copied.table["deeper"]["b"][0] is copied.second
    assert type(copied.ordered) is OrderedDict
    assert copied.ordered["z"] is copied.second
    assert copied.by_default.default_factory is list
    assert copied.by_default["k"] == [copied.first]
    assert copied.step.__self__ is copied.first
    assert copied.own_step.__self__ is copied
    assert copied.weights[0] is copied.first.weight


def test_a_module_that_belongs_to_somebody_else_is_not_copied():
    module = Entangled()
    assert copy_structure(module).foreign[0] is module.foreign[0]


def test_a_parent_that_a_module_refers_to_is_not_copied():
    parent = nn.Sequential(nn.Linear(2, 2))
    parent[0].above = [parent]
    assert copy_structure(parent[0]).above[0] is parent
    assert copy_structure(parent)[0].above[0] is not parent


def test_the_copy_computes_with_the_tensors_given():
    torch.manual_seed(0)
    module = Entangled()
    exchanged = fresh(module)
    x = torch.randn(5, 3)
    found = copy_structure(module, exchanged)(x)
    first, second = module.first, module.second
    w1, b1 = exchanged[id(first.weight)], exchanged[id(first.bias)]
    w2, b2 = exchanged[id(second.weight)], exchanged[id(second.bias)]
    hidden = torch.tanh(x @ w1.T + b1) + x @ w1.T + exchanged[id(module.tied.bias)]
    # A list of tensors is no parameter, and keeps what is in it.
    expected = 2 * (hidden @ w2.T + b2) + 1 + hidden @ second.weight.T
    assert largest_gap([found], [expected]) < 1e-12


def test_tied_weights_are_exchanged_in_every_place():
    module = Entangled()
    new = torch.zeros(4, 3)
    copied = copy_structure(module, {id(module.first.weight): new})
    assert copied.first.weight is copied.tied.weight is new
    assert copied.weights[0] is module.first.weight is module.tied.weight


def test_the_original_is_as_before_after_copies_were_called_and_changed():
    torch.manual_seed(0)
    module = Entangled()
    before = snapshot(module)
    exchanged = fresh(module)
    random = torch.get_rng_state()
    copied = copy_structure(module, exchanged)
    assert torch.equal(torch.get_rng_state(), random)
    copied(torch.randn(2, 3)).sum().backward()
    copied.eval().requires_grad_(False)
    copied.first.register_forward_hook(lambda *_: None)
    copied.register_buffer("more", torch.ones(1))
    copied.path.append(None)
    copied.table["deeper"]["c"] = 1
    copied.first.in_features = 77
    copied._non_persistent_buffers_set.add("count")
    assert module.first.weight.grad is None
    assert len(module.path) == 3 and set(module.table["deeper"]) == {"b"}
    assert module.first.in_features == 3
    assert module._non_persistent_buffers_set == {"scratch"}
    # Flags of exchanged tensors are their own; the shared ones would be shared.
    assert_same_snapshot(before, snapshot(module))


def test_a_copy_has_the_state_dict_of_the_original():
    module = Entangled()
    copied = copy_structure(module)
    assert list(copied.state_dict()) == list(module.state_dict())
    names = [name for name, _ in copied.named_parameters()]
    assert names == [name for name, _ in module.named_parameters()]


def test_a_copy_of_a_copy_exchanges_what_the_first_brought_in():
    module = nn.Linear(2, 2)
    one = torch.zeros(2, 2)
    first = copy_structure(module, {id(module.weight): one})
    two = torch.ones(2, 2)
    assert copy_structure(first, {id(one): two}).weight is two
    assert first.weight is one


def tensors_by_name(module):
    return {
        f"{prefix}.{key}" if prefix else key: tensor
        for prefix, child in module.named_modules(remove_duplicate=False)
        for key, tensor in child._parameters.items()
    }


def test_an_exchange_puts_other_parameters_into_a_copy_and_nothing_else():
    module = Entangled()
    copied = copy_structure(module)
    before = snapshot(module)
    new = {id(p): torch.randn_like(p) for p in module.parameters()}
    kept = list(copied.buffers())
    exchange(copied, new)
    for name, parameter in module.named_parameters(remove_duplicate=False):
        assert tensors_by_name(copied)[name] is new[id(parameter)], name
    assert all(a is b for a, b in zip(copied.buffers(), kept, strict=True))
    assert copied.weights[0] is module.first.weight and copied.absent is None
    assert_same_snapshot(before, snapshot(module))


def test_an_exchange_of_some_leaves_the_others():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    copied = copy_structure(module)
    new = torch.zeros(2, 2)
    exchange(copied, {id(module[0].weight): new, id(torch.ones(1)): torch.ones(1)})
    assert copied[0].weight is new
    assert copied[0].bias is module[0].bias and copied[1].weight is module[1].weight


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_follows_an_exchange(kind):
    torch.manual_seed(0)
    module = kind(3, 4)
    copied = copy_structure(module)
    new = {id(p): torch.randn_like(p) for p in module.parameters()}
    exchange(copied, new)
    x = torch.randn(5, 2, 3)
    named = {name: new[id(p)] for name, p in module.named_parameters()}
    expected = torch.func.functional_call(copy_structure(module), named, (x,))[0]
    assert largest_gap([copied(x)[0]], [expected]) < 1e-12


def test_what_a_copy_holds_elsewhere_keeps_the_tensors_from_before_an_exchange():
    module = nn.Linear(2, 2)
    copied = copy_structure(module)
    copied.start = [copied.weight]
    exchange(copied, {id(module.weight): torch.zeros(2, 2)})
    assert copied.start[0] is module.weight


def test_a_copy_can_be_copied_deeply():
    copied = copy_structure(Entangled())
    assert copy.deepcopy(copied).first is not copied.first
