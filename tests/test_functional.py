import copy
import types
from collections import OrderedDict, defaultdict

import pytest
import torch
from by_hand import largest_gap
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from l2l_evograd.functional import copy_structure

pytestmark = pytest.mark.usefixtures("float64")


class Entangled(nn.Module):
    """Refers to its parts in every way that a module may."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 3)
        self.tied = nn.Linear(3, 4)
        self.tied.weight = self.first.weight
        self.same = self.first
        self.path = [self.first, nn.Tanh(), (self.second,)]
        self.table = {"a": self.first, "deeper": {"b": [self.second]}}
        self.ordered = OrderedDict(z=self.second)
        self.by_default = defaultdict(list, k=[self.first])
        self.step = self.first.forward
        self.own_step = self.plus_one
        self.weights = [self.first.weight, self.second.weight]
        self.foreign = [nn.Linear(2, 2)]
        self.nothing = None
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("scratch", torch.ones(2), persistent=False)
        self.register_parameter("absent", None)

    def plus_one(self, x):
        return self.second(x) + 1

    def forward(self, x):
        self.count += 1
        x = torch.tanh(self.step(x)) + self.tied(x)
        return self.own_step(x) + self.path[2][0](x) + x @ self.weights[1].T


def tensors_of(module):
    return [*module.parameters(), *module.buffers()]


def fresh(module):
    return {
        id(t): torch.randn_like(t).requires_grad_(t.requires_grad)
        for t in tensors_of(module)
    }


def snapshot(module):
    """All that a user could see of a module: objects, values and flags."""
    return [
        (
            id(child),
            type(child),
            list(vars(child)),
            {
                k: (id(v), v.clone(), v._version, v.requires_grad)
                for k, v in [*child._parameters.items(), *child._buffers.items()]
                if v is not None
            },
            {k: id(v) for k, v in child._modules.items()},
            child.training,
            {k: id(v) for k, v in child._forward_hooks.items()},
            {k: id(v) for k, v in child._forward_pre_hooks.items()},
        )
        for child in module.modules()
    ]


def assert_same_snapshot(one, other):
    for a, b in zip(one, other, strict=True):
        assert a[:3] == b[:3] and a[4:] == b[4:]
        assert a[3].keys() == b[3].keys()
        for key, (identity, value, version, flag) in a[3].items():
            assert (identity, version, flag) == (b[3][key][0], *b[3][key][2:])
            assert torch.equal(value, b[3][key][1])


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
    expected = 2 * (hidden @ w2.T + b2) + 1 + hidden @ w2.T
    assert largest_gap([found], [expected]) < 1e-12


def test_tied_weights_are_exchanged_in_every_place():
    module = Entangled()
    new = torch.zeros(4, 3)
    copied = copy_structure(module, {id(module.first.weight): new})
    assert copied.first.weight is copied.tied.weight is copied.weights[0]
    assert copied.first.weight is new


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


def test_a_copy_can_be_copied_deeply():
    copied = copy_structure(Entangled())
    assert copy.deepcopy(copied).first is not copied.first
