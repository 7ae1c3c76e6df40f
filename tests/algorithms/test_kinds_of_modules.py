import copy

import pytest
import torch
from by_hand import ByHand, largest_gap, meta_gradients
from right_norm import RightNorm
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from zoo import BATCH, WITH_KINKS, ZOO, episode, problem, stack

from l2l_evograd import EvoGrad, EvoGradMetaOptimizer, Exact, Guided, hypergradient


def state_of(model):
    """All that may not change, bit for bit."""
    tensors = [*model.parameters(), *model.buffers()]
    return [
        [
            (id(t), t.detach().clone(), t.requires_grad, t.grad, t._version)
            for t in tensors
        ],
        [
            (
                id(m),
                m.training,
                list(vars(m)),
                len(m._forward_hooks),
                len(m._forward_pre_hooks),
                len(m._backward_hooks),
                {k: v for k, v in vars(m).items() if isinstance(v, int | float | str)},
            )
            for m in model.modules()
        ],
    ]


def assert_same_state(one, other):
    assert one[1] == other[1]
    for a, b in zip(one[0], other[0], strict=True):
        assert a[0] == b[0] and a[2:] == b[2:] and torch.equal(a[1], b[1])


WAYS = {
    "exact": {},
    "computed again": {"memory": "recompute"},
    "first order": {"first_order": True},
}


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ZOO)
def test_meta_gradients_are_those_of_the_steps_written_out(name, way, steps):
    model, *data = problem(name)
    before = state_of(model)
    params = [p for p in model.parameters() if p.requires_grad]
    run = episode(*data, steps)
    settings = WAYS[way]
    meta = EvoGradMetaOptimizer(model, 0.2, check="always", **settings)
    found = meta_gradients(meta, run, params)
    after_ours = torch.get_rng_state()
    assert_same_state(before, state_of(model))
    by_hand = ByHand(model, 0.2, settings.get("first_order"))
    expected = meta_gradients(by_hand, run, params)
    assert abs(found[0] - expected[0]) < 1e-12
    assert largest_gap(found[1], expected[1]) < 1e-10
    # as after the same calls of the module itself
    assert torch.equal(after_ours, torch.get_rng_state())


def unrolled(model, inner, outer, lam, lr, steps):
    """Return dL/dλ with functional_call, all on one graph."""
    params = {n: p for n, p in model.named_parameters() if p.requires_grad}
    params = {n: p.detach().clone().requires_grad_() for n, p in params.items()}
    buffers = {n: b.detach().clone() for n, b in model.named_buffers()}

    def call(x):
        with sdpa_kernel(SDPBackend.MATH):
            return functional_call(model, {**params, **buffers}, (x,))

    for _ in range(steps):
        grads = torch.autograd.grad(
            inner(call), list(params.values()), create_graph=True
        )
        params = {
            n: p - lr * g for (n, p), g in zip(params.items(), grads, strict=True)
        }
    return torch.autograd.grad(outer(call), lam)[0]


def losses_of(x, y, xq, yq, lam):
    def inner(view):
        losses = F.cross_entropy(view(x), y, reduction="none")
        return (torch.sigmoid(lam) * losses).mean()

    def outer(view):
        return F.cross_entropy(view(xq), yq)

    return inner, outer


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", ZOO)
def test_hypergradients_are_those_of_the_steps_written_out(name, steps):
    model, *data = problem(name)
    lam = torch.randn(BATCH, dtype=torch.float64, requires_grad=True)
    inner, outer = losses_of(*data, lam)
    # functional_call lets recurrent layers keep the tensors it was given.
    torch.manual_seed(7)
    with RightNorm():
        expected = unrolled(copy.deepcopy(model), inner, outer, lam, 0.2, steps)
    after_unroll = torch.get_rng_state()
    before = state_of(model)

    def estimate(**settings):
        torch.manual_seed(7)
        found = hypergradient(inner, outer, model, lam, steps=steps, **settings)
        assert torch.equal(torch.get_rng_state(), after_unroll)
        assert_same_state(before, state_of(model))
        assert lam.grad is None
        assert torch.isfinite(found.gradients).all()
        return found.gradients

    exact = estimate(lr=0.2, estimator=Exact())
    assert largest_gap([exact], [expected]) < 1e-10
    again = estimate(lr=0.2, estimator=Exact(), memory="recompute")
    assert largest_gap([again], [expected]) < 1e-10
    plainer = estimate(lr=0.2, estimator=Exact(), first_order=True)
    for guided in (Guided(h=1e-4), Guided(h=1e-6, scheme="forward")):
        found = estimate(lr=0.2, estimator=guided)
        assert F.cosine_similarity(found, plainer, dim=0) > 0.999 or name in WITH_KINKS
        if steps == 1 and name not in WITH_KINKS:
            assert largest_gap([found], [exact]) < 1e-4
    assert estimate(lr=0.2, estimator=EvoGrad(2)).abs().max() > 0
    assert estimate(update="evolution").abs().max() > 0


@pytest.mark.parametrize("name", ["batch norm", "batch norm, no average", "images"])
def test_statistics_after_a_step_are_those_of_one_ordinary_pass(name):
    model, x, y, xq, yq = problem(name)
    twin = copy.deepcopy(model)
    learner = EvoGradMetaOptimizer(model, 0.2).clone()
    learner.adapt(F.cross_entropy(learner(x), y))
    twin(x)
    pairs = list(zip(learner.module.buffers(), twin.buffers(), strict=True))
    assert all(torch.equal(found, expected) for found, expected in pairs)
    loss = F.cross_entropy(learner(xq), yq)
    kept = [b.clone() for b in learner.module.buffers()]
    loss.backward()
    assert all(map(torch.equal, learner.module.buffers(), kept))
    assert all(b.abs().sum() in (0, len(b)) for b in model.buffers() if b.ndim)


def test_everything_of_the_user_is_as_it_was_and_gradients_add_up():
    model, x, y, xq, yq = problem("batch norm")
    model[0].register_forward_hook(lambda *_: None)
    model[0].weight.register_hook(lambda grad: grad * 2)
    model[3].weight.grad = torch.ones_like(model[3].weight)
    before = state_of(model)
    meta = EvoGradMetaOptimizer(model, 0.2)
    grads = []
    for _ in range(2):
        learner = meta.clone()
        learner.adapt(F.cross_entropy(learner(x), y))
        assert_same_state(before, state_of(model))
        F.cross_entropy(learner(xq), yq).backward()
        grads.append((model[0].weight.grad.clone(), model[3].weight.grad.clone()))
        for (_, _, _, grad, _), param in zip(
            before[0], model.parameters(), strict=False
        ):
            param.grad = grad
        model[3].weight.grad.fill_(1)
    assert all(map(torch.equal, *grads))
    hookless = ByHand(model, 0.2).clone()
    hookless.adapt(F.cross_entropy(hookless(x), y))
    for param in model.parameters():
        param.grad = None
    F.cross_entropy(hookless(xq), yq).backward()
    assert largest_gap([model[0].weight.grad], [grads[0][0]]) < 1e-10
    assert largest_gap([model[3].weight.grad + 1], [grads[0][1]]) < 1e-10


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("first_order", [False, True])
def test_the_old_weight_norm_hook_works_in_learners(first_order):
    torch.manual_seed(0)
    model = stack().double()
    nn.utils.weight_norm(model[0])
    data = problem("dropout")[1:]
    params = list(model.parameters())
    run = episode(*data, 2)
    _, found = meta_gradients(
        EvoGradMetaOptimizer(model, 0.2, first_order=first_order), run, params
    )
    _, expected = meta_gradients(ByHand(model, 0.2, first_order), run, params)
    assert largest_gap(found, expected) < 1e-10


def test_frozen_parameters_stay_and_get_no_gradient():
    model, *data = problem("frozen")
    learner = EvoGradMetaOptimizer(model, 0.2).clone()
    learner.adapt(F.cross_entropy(learner(data[0]), data[1]))
    # A copy, as learn2learn's.
    assert torch.equal(learner.module[0].weight, model[0].weight)
    assert learner.module[0].weight is not model[0].weight
    assert not learner.module[0].weight.requires_grad
    assert not torch.equal(learner.module[0].bias, model[0].bias)
    F.cross_entropy(learner(data[2]), data[3]).backward()
    assert model[0].weight.grad is None and model[1].weight.grad is None
    assert model[0].bias.grad is not None


def test_tied_weights_stay_tied_and_get_one_gradient():
    model, x, y, *_ = problem("tied")
    learner = EvoGradMetaOptimizer(model, 0.2).clone()
    for _ in range(2):
        learner.adapt(F.cross_entropy(learner(x), y))
        assert learner.module.out.weight is learner.module.embedding.weight
    assert len(list(learner.parameters())) == len(list(model.parameters()))


def test_recurrent_layers_run_with_the_adapted_weights():
    model, x, y, *_ = problem("LSTM")
    learner = EvoGradMetaOptimizer(model, 5.0).clone()
    before = learner(x)
    learner.adapt(F.cross_entropy(learner(x), y))
    adapted = dict(learner.module.named_parameters())
    ordinary = copy.deepcopy(model)
    with torch.no_grad():
        for name, param in ordinary.named_parameters():
            param.copy_(adapted[name])
    assert largest_gap([learner(x)], [ordinary(x)]) < 1e-12
    assert largest_gap([learner(x)], [before]) > 1e-3


@pytest.mark.parametrize("estimator", [Exact(), Guided(h=1e-4)])
def test_hyperparameters_inside_a_module_are_not_adapted(estimator):
    model, x, y, xq, yq = problem("group norm")
    scale = model[1].weight

    def run(meta):
        learner = meta.clone()
        for _ in range(2):
            learner.adapt(F.cross_entropy(learner(x), y))
            assert learner.module[1].weight is scale
        return F.cross_entropy(learner(xq), yq)

    meta = EvoGradMetaOptimizer(
        model, 0.2, hyperparameters="1.weight", estimator=estimator, first_order=False
    )
    _, found = meta_gradients(meta, run, [scale])
    others = {n: p for n, p in model.named_parameters() if p is not scale}
    params = dict(others)
    for _ in range(2):
        loss = F.cross_entropy(functional_call(model, params, (x,)), y)
        grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        params = {
            n: p - 0.2 * g for (n, p), g in zip(params.items(), grads, strict=True)
        }
    outer = F.cross_entropy(functional_call(model, params, (xq,)), yq)
    expected = torch.autograd.grad(outer, scale)
    exact = isinstance(estimator, Exact)
    assert largest_gap(found, expected) < (1e-10 if exact else 1e-6)
