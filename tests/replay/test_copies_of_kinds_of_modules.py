"""Copies of modules that hold their tensors in ways of their own, and refusals."""

import types

import pytest
import torch
from by_hand import largest_gap
from entangled import assert_same_snapshot, fresh, snapshot
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from l2l_evograd.replay.module_copy import copy_structure

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(
    "parametrized",
    [
        lambda m: parametrizations.weight_norm(m),
        lambda m: parametrizations.spectral_norm(m),
        lambda m: parametrizations.orthogonal(m, orthogonal_map="cayley"),
        lambda m: parametrizations.orthogonal(m, orthogonal_map="householder"),
    ],
    ids=["weight_norm", "spectral_norm", "cayley", "householder"],
)
def test_parametrized_modules_compute_from_the_tensors_given(parametrized):
    torch.manual_seed(0)
    module = parametrized(nn.Linear(4, 4)).eval()
    exchanged = fresh(module)
    named = {
        name: exchanged[id(t)]
        for name, t in [*module.named_parameters(), *module.named_buffers()]
    }
    before = snapshot(module)
    copied = copy_structure(module, exchanged)
    assert parametrize.is_parametrized(copied, "weight")
    x = torch.randn(3, 4)
    found = copied(x)
    expected = functional_call(module, named, (x,))
    assert largest_gap([found], [expected]) < 1e-12
    weights = [t for t in exchanged.values() if t.requires_grad]
    assert all(g is not None for g in torch.autograd.grad(found.sum(), weights))
    assert_same_snapshot(before, snapshot(module))


def test_spectral_norm_in_training_updates_the_vectors_of_the_copy_alone():
    torch.manual_seed(0)
    module = parametrizations.spectral_norm(nn.Linear(4, 4))
    u = module.parametrizations.weight[0]._u
    kept = u.clone()
    copied = copy_structure(module, {id(b): b.clone() for b in module.buffers()})
    copied(torch.randn(2, 4))
    assert torch.equal(u, kept)
    assert not torch.equal(copied.parametrizations.weight[0]._u, kept)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_the_old_weight_norm_hook_writes_to_the_copy():
    torch.manual_seed(0)
    module = nn.utils.weight_norm(nn.Linear(4, 2))
    weight = module.weight
    g, v = torch.rand(2, 1).requires_grad_(), torch.randn(2, 4).requires_grad_()
    copied = copy_structure(module, {id(module.weight_g): g, id(module.weight_v): v})
    x = torch.randn(3, 4)
    expected = F.linear(x, g * v / v.norm(dim=1, keepdim=True), module.bias)
    assert largest_gap([copied(x)], [expected]) < 1e-12
    assert module.weight is weight and copied.weight is not weight


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_use_the_weights_given(kind):
    torch.manual_seed(0)
    module = kind(3, 4, num_layers=2, bidirectional=True)
    exchanged = fresh(module)
    named = {name: exchanged[id(p)] for name, p in module.named_parameters()}
    copied = copy_structure(module, exchanged)
    assert all(
        flat is getattr(copied, name)
        for flat, name in zip(
            copied._flat_weights, copied._flat_weights_names, strict=True
        )
    )
    x = torch.randn(5, 2, 3)
    found = copied(x)[0]
    assert all(
        f is p for f, p in zip(module._flat_weights, module.parameters(), strict=True)
    )
    expected = functional_call(module, named, (x,))[0]
    assert largest_gap([found], [expected]) < 1e-12


def test_hooks_of_every_sort_run_on_the_copy_and_are_given_the_copy():
    module = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    seen = []
    module[0].register_forward_hook(lambda m, i, o: seen.append(m))
    module[0].register_forward_hook(lambda m, i, k, o: o * 3, with_kwargs=True)
    module.register_forward_pre_hook(lambda m, i: (i[0] + 1,))
    module.register_full_backward_hook(lambda m, gi, go: seen.append(m))
    copied = copy_structure(module)
    x = torch.randn(2, 2, requires_grad=True)
    out = copied(x)
    assert largest_gap([out], [torch.tanh(3 * module[0].forward(x + 1))]) < 1e-12
    out.sum().backward()
    assert seen == [copied[0], copied]


def test_a_hook_that_is_a_method_of_a_submodule_is_bound_to_the_copy():
    class Watcher(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.calls = 0
            self.layer.register_forward_hook(self.watch)

        def watch(self, module, inputs, output):
            self.calls += 1

        def forward(self, x):
            return self.layer(x)

    module = Watcher()
    copied = copy_structure(module)
    copied(torch.zeros(1, 2))
    assert (copied.calls, module.calls) == (1, 0)


def test_a_forward_replaced_on_the_instance_is_bound_to_the_copy():
    module = nn.Linear(2, 2)
    module.forward = types.MethodType(lambda self, x: x @ self.weight * 2, module)
    new = torch.eye(2)
    copied = copy_structure(module, {id(module.weight): new})
    x = torch.randn(3, 2)
    assert torch.equal(copied(x), 2 * x)


def test_a_module_compiled_in_place_runs_uncompiled_in_the_copy():
    module = nn.Linear(2, 2)
    module._compiled_call_impl = pytest.fail  # where module.compile() puts its result
    new = torch.eye(2)
    copied = copy_structure(module, {id(module.weight): new, id(module.bias): None})
    x = torch.randn(3, 2)
    assert torch.equal(copied(x), x)
    assert module._compiled_call_impl is pytest.fail


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.parametrize(
    "make",
    [torch.jit.script, lambda m: torch.jit.trace(m, torch.zeros(1, 2))],
    ids=["scripted", "traced"],
)
def test_scripted_modules_are_refused_also_as_parts(make):
    scripted = make(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="scripted module.*pass the module it was"):
        copy_structure(scripted)
    with pytest.raises(TypeError, match="scripted module"):
        copy_structure(nn.Sequential(nn.Tanh(), scripted))


def test_what_torch_compile_returned_is_refused_also_as_a_part():
    compiled = torch.compile(nn.Linear(2, 2), backend="eager")
    with pytest.raises(TypeError, match=r"torch\.compile\(module\).*compile functions"):
        copy_structure(compiled)
    with pytest.raises(TypeError, match="bound to the original parameters"):
        copy_structure(nn.Sequential(compiled))
