"""What learn2learn 0.2.0 tests of its MAML, held by both classes.

Different on purpose: learn2learn's MAML refuses parameters with ``requires_grad=False``
unless ``allow_nograd`` is set, here they are left as they are in any case.
"""

import copy
import gc
import weakref

import pytest
import torch
from learn2learn.algorithms import MAML
from learn2learn_model import small_model
from torch import nn

from l2l_evograd import EvoGradMetaOptimizer

pytestmark = pytest.mark.usefixtures("float64")
algorithms = pytest.mark.parametrize("algorithm", [MAML, EvoGradMetaOptimizer])
orders = pytest.mark.parametrize("first_order", [False, True])


def norms(module, every=1):
    return sum(p.norm() for p in list(module.parameters())[::every])


@algorithms
@orders
def test_clones_compute_what_the_model_computes(algorithm, first_order):
    model, x = small_model()
    meta = algorithm(model, lr=0.01, first_order=first_order)
    for learner in (meta.clone(), meta.clone()):
        assert torch.allclose(learner(x), model(x), rtol=0, atol=1e-12)


@algorithms
def test_a_clone_is_on_the_graph_of_the_original(algorithm):
    model, x = small_model()
    algorithm(model, lr=0.01, first_order=False).clone()(x).norm().backward()
    assert all(p.grad.norm() > 0 for p in model.parameters())


@algorithms
@orders
def test_adapting_lowers_the_loss_and_reaches_the_original(algorithm, first_order):
    model, x = small_model()
    learner = algorithm(model, lr=0.01, first_order=first_order).clone()
    before = learner(x).norm()
    learner.adapt(before)
    after = learner(x).norm()
    assert after <= before
    after.backward()
    assert all(p.grad.norm() > 0 for p in model.parameters())


@algorithms
def test_first_order_gradients_are_those_at_the_adapted_weights(algorithm):
    model, x = small_model()
    learner = algorithm(model, lr=0.01, first_order=True).clone()
    for _ in range(3):
        learner.adapt(learner(x).norm())
    plain = copy.deepcopy(model)
    with torch.no_grad():
        for p, adapted in zip(plain.parameters(), learner.parameters(), strict=True):
            p.copy_(adapted)
    plain(x).norm().backward()
    learner(x).norm().backward()
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=0, atol=1e-12)


@algorithms
@orders
def test_a_loss_of_every_other_parameter(algorithm, first_order):
    model, _ = small_model()
    meta = algorithm(model, lr=0.01, first_order=first_order, allow_unused=True)
    learner = meta.clone()
    learner.adapt(norms(learner, every=2))
    norms(learner, every=2).backward()
    used = [p.grad is not None for p in model.parameters()]
    assert used == [True, False] * 3


@algorithms
@pytest.mark.parametrize("where", ["at construction", "in the clone", "in the step"])
def test_parameters_without_grad_stay_where_allow_nograd_is_set(algorithm, where):
    model, _ = small_model()
    model[2].weight.requires_grad_(False)
    before = model[2].weight.clone()
    meta = algorithm(model, lr=0.01, allow_nograd=where == "at construction")
    learner = meta.clone(allow_nograd=True) if "clone" in where else meta.clone()
    # learn2learn takes allow_unused from allow_nograd at construction alone.
    allowed = {"allow_nograd": True} if "step" in where else {}
    learner.adapt(norms(learner), **allowed)
    norms(learner).backward()
    assert model[2].weight.grad is None
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert torch.equal(model[2].weight, before)
    adapted = dict(learner.module.named_parameters())
    assert torch.equal(adapted["2.weight"], before)
    assert not torch.equal(adapted["2.bias"], model[2].bias)


def test_parameters_without_grad_stay_in_any_case():
    model, _ = small_model()
    model[2].weight.requires_grad_(False)
    learner = EvoGradMetaOptimizer(model, lr=0.01).clone()
    learner.adapt(norms(learner))
    adapted = dict(learner.module.named_parameters())
    assert torch.equal(adapted["2.weight"], model[2].weight)
    assert not torch.equal(adapted["2.bias"], model[2].bias)


class TwoWays(nn.Module):
    """Reaches the same modules by two names, as learn2learn's issue 174 does."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU())
        self.head = nn.Sequential(nn.Conv2d(4, 5, 3, 2, 1))
        self.net = nn.Sequential(self.body, self.head)

    def forward(self, x):
        return self.net(x)


@algorithms
@orders
def test_modules_with_two_names_are_one(algorithm, first_order):
    torch.manual_seed(0)
    model, x = TwoWays(), torch.randn(2, 3, 8, 8)
    learner = algorithm(model, lr=0.1, first_order=first_order).clone()
    learner.adapt(norms(learner))
    assert len(list(learner.module.parameters())) == len(list(model.parameters()))
    assert learner.module.net[0][0].weight is learner.module.body[0].weight
    own = learner.module.head(learner.module.body(x))
    assert torch.equal(learner(x), own)
    norms(learner).backward()
    assert all(p.grad is not None for p in model.parameters())


# learn2learn looks at .grad where it rebuilds what recurrent layers flatten.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@algorithms
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_layers_learn_to_adapt(algorithm, kind):
    torch.manual_seed(1234)
    meta = algorithm(kind(2, 1), lr=1e-3, allow_unused=False)
    opt, data = torch.optim.SGD(meta.parameters(), 0.001), torch.randn(10, 20, 2)

    def outer_loss():
        learner = meta.clone()
        for _ in range(3):
            learner.adapt(learner(data)[0].norm())
        return learner(data)[0].norm()

    first = outer_loss()
    first.backward()
    opt.step()
    assert outer_loss() < first


@algorithms
def test_clones_take_the_settings_of_the_original_unless_told(algorithm):
    model, _ = small_model()
    meta = algorithm(model, 0.01, first_order=True, allow_unused=True)
    learner = meta.clone()
    assert (learner.first_order, learner.allow_unused) == (True, True)
    assert learner.lr == meta.lr == 0.01
    learner = meta.clone(first_order=False, allow_unused=False)
    assert (learner.first_order, learner.allow_unused) == (False, False)


@algorithms
def test_attributes_of_the_model_are_those_of_the_wrapper(algorithm):
    model, _ = small_model()
    meta = algorithm(model, lr=0.01)
    assert torch.equal(meta.constant, model.constant)
    assert torch.equal(meta.clone().constant, model.constant)
    with pytest.raises(AttributeError):
        _ = meta.nothing_of_this_name


@algorithms
def test_what_learners_held_is_freed_with_them(algorithm):
    class Watched(nn.Linear):
        def forward(self, x):
            out = super().forward(x).tanh()
            alive.add(out)
            return out

    alive = weakref.WeakSet()
    torch.manual_seed(0)
    meta = algorithm(nn.Sequential(Watched(4, 4), Watched(4, 4)), lr=0.01)
    counts = []
    for _ in range(2):
        learner = meta.clone()
        for _ in range(3):
            learner.adapt(learner(torch.randn(5, 4)).norm())
        learner(torch.randn(5, 4)).norm().backward()
        del learner
        gc.collect()
        counts.append(len(alive))
    assert counts == [0, 0]
