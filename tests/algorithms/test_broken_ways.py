"""What happens to a learner's way from its first weights is seen, or is right."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from warped import WARPS, Warped, batches

from l2l_evograd import ARUBA, EvoGradMetaOptimizer, TrajectoryBuffer, WarpGrad

pytestmark = pytest.mark.usefixtures("float64")


def loss_of(learner, seed=0):
    (x, y), _ = batches(1)[0]
    return F.cross_entropy(learner(x), y)


def warpgrad(model, init=None, **options):
    return WarpGrad(model, 0.1, warp=WARPS, init=init, **options)


def test_a_mean_squared_error_that_has_no_forward_derivative_is_differentiated():
    # torch's tangent of the backward pass of mse_loss writes to a symbol of zeros.
    layers = [nn.Linear(300, 300), nn.Linear(300, 300), nn.Linear(300, 1)]
    model = nn.Sequential(*layers)
    x, y = torch.randn(6, 300), torch.randn(6, 1)
    found = []
    for estimator in ("exact", None):
        model.zero_grad()
        meta = WarpGrad(model, 0.01, warp="1", estimator=estimator)
        learner = meta.clone()
        learner.adapt(F.mse_loss(learner(x), y))
        F.mse_loss(learner(x), y).backward()
        found.append(model[1].weight.grad.clone())
    weight = model[1].weight.detach().clone().requires_grad_()
    named = {**dict(model.named_parameters()), "1.weight": weight}
    theta = {n: p for n, p in named.items() if not n.startswith("1.")}
    call = torch.func.functional_call
    inner = F.mse_loss(call(model, named, (x,)), y)
    slopes = torch.autograd.grad(inner, list(theta.values()), create_graph=True)
    after = {n: p - 0.01 * g for (n, p), g in zip(theta.items(), slopes, strict=True)}
    outer = F.mse_loss(call(model, {**named, **after}, (x,)), y)
    (expected,) = torch.autograd.grad(outer, weight)
    for grad in found:
        assert torch.allclose(grad, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("init", ["maml", "reptile"])
def test_a_clone_of_a_learner_that_moved_does_not_begin_at_the_initial_weights(init):
    learner = warpgrad(Warped(), init).clone()
    learner.adapt(loss_of(learner))
    other = learner.clone()
    other.adapt(loss_of(other))
    loss_of(other).backward()
    with pytest.raises(TypeError, match="began at the initial weights: .* has moved"):
        other.init_loss(loss_of(other))


@pytest.mark.parametrize("how", ["assign", "weight norm", "another layer"])
def test_warp_parameters_that_left_the_model_are_refused(how):
    model = Warped()
    meta = warpgrad(model)
    learner = meta.clone()
    learner.adapt(loss_of(learner))
    if how == "assign":
        state = copy.deepcopy(meta.state_dict())
        meta.load_state_dict(state, assign=True)
    elif how == "weight norm":
        parametrizations.weight_norm(model.warp1[0])
    else:
        model.warp1 = nn.Linear(5, 5)
    with pytest.raises(
        ValueError, match="no longer a parameter of the model: .* a new"
    ):
        meta.clone()


def test_gradient_hooks_on_what_is_learned_are_refused_where_they_would_be_wrong():
    model = Warped()
    weight = model.warp1[0].weight
    handle = weight.register_hook(lambda grad: 2 * grad)
    for options in ({}, {"estimator": "guided"}, {"init": "maml"}):
        learner = warpgrad(model, **options).clone()
        with pytest.raises(ValueError, match="gradient hook, .* .grad after backward"):
            learner.adapt(loss_of(learner))
    learner = EvoGradMetaOptimizer(
        model, 0.1, hyperparameters=WARPS, estimator="exact"
    ).clone()
    with pytest.raises(ValueError, match="gradient hook"):
        learner.adapt(loss_of(learner))
    # Autograd alone computes this one, and calls the hook once.
    data = batches(1)[0]
    grads = []
    for hooked in (True, False):
        if not hooked:
            handle.remove()
        model.zero_grad()
        meta = EvoGradMetaOptimizer(
            model, 0.1, False, hyperparameters=WARPS, estimator="exact"
        )
        learner = meta.clone()
        for x, y in data:
            learner.adapt(F.cross_entropy(learner(x), y))
        F.cross_entropy(learner(data[0][0]), data[0][1]).backward()
        grads.append(weight.grad)
    assert torch.allclose(grads[0], 2 * grads[1], rtol=1e-12)


def heads(learner):
    """Ways in which users change the head of a learner."""

    def replaced():
        learner.module.head = nn.Linear(5, 3)

    def larger():
        learner.module.head = nn.Linear(5, 4)

    def without_bias():
        learner.module.head = nn.Linear(5, 3, bias=False)

    def frozen():
        learner.module.head = nn.Linear(5, 3).requires_grad_(False)

    return {f.__name__: f for f in (replaced, larger, without_bias, frozen)}


@pytest.mark.parametrize("how", ["replaced", "larger", "without_bias", "frozen"])
@pytest.mark.parametrize("name", ["maml", "fomaml", "reptile", "leap", "aruba"])
@pytest.mark.parametrize("steps", [0, 1])
def test_a_way_that_was_broken_is_refused(name, how, steps):
    meta = ARUBA(Warped(), 0.1) if name == "aruba" else warpgrad(Warped(), name)
    learner = meta.clone()
    for _ in range(steps):
        learner.adapt(loss_of(learner))
    heads(learner)[how]()
    with pytest.raises(ValueError, match="way from its first weights is broken"):
        learner.adapt(loss_of(learner))
    if steps:
        with pytest.raises(ValueError, match="way from its first weights is broken"):
            learner.init_loss() if name == "aruba" else learner.init_loss(
                loss_of(learner)
            )
        if name == "aruba":
            with pytest.raises(ValueError, match="first weights is broken"):
                meta.collect(learner)


def test_a_head_may_be_replaced_where_no_way_is_followed():
    model = Warped()
    learner = warpgrad(model).clone()
    learner.adapt(loss_of(learner))
    learner.module.head = nn.Linear(5, 3)
    learner.adapt(loss_of(learner))
    loss_of(learner).backward()
    assert all(p.grad is not None for p in model.warp1.parameters())


def test_leaps_loss_stays_what_it_was():
    model = Warped()
    learner = warpgrad(model, "leap").clone()
    learner.adapt(loss_of(learner))
    first = learner.init_loss(loss_of(learner))
    learner.adapt(loss_of(learner))
    learner.init_loss(loss_of(learner))
    (grad,) = torch.autograd.grad(first, model.head.weight)
    assert grad.abs().sum() > 0


def test_points_after_an_interrupted_replay_are_a_uniform_sample():
    # One of five points stays, and ten more come: each of the eleven is kept with
    # probability 5 / 11, in N independent buffers.
    n, later = 1500, 10
    meta = warpgrad(Warped())
    learner = meta.clone()
    counts = torch.zeros(1 + later)
    generator = torch.Generator().manual_seed(2)
    for _ in range(n):
        buffer = TrajectoryBuffer(5, generator=generator)
        for _ in range(5):
            buffer.add(learner, 0)
        for _ in range(4):
            buffer._points.pop(buffer._below(len(buffer)))
        buffer._seen = len(buffer)  # as a replay that ends early leaves it
        for task in range(1, later + 1):
            buffer.add(learner, task)
        for point in buffer._points:
            counts[point.task] += 1
    share = 5 / (1 + later)
    error = (share * (1 - share) / n) ** 0.5
    assert ((counts / n - share).abs() < 4 * error).all()


def test_an_interrupted_replay_counts_what_it_leaves():
    meta = warpgrad(Warped())
    buffer = TrajectoryBuffer(5)
    for task in range(9):
        buffer.add(meta.clone(), task)
    for _ in zip(range(2), buffer.replay(meta), strict=False):
        pass
    assert buffer._seen == len(buffer) == 3


def test_points_of_other_frozen_parts_are_refused():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.warp, self.b = (nn.Linear(3, 3) for _ in range(3))

        def forward(self, x):
            return self.b(self.warp(self.a(x)))

    model = Two()
    model.b.requires_grad_(False)
    buffer = TrajectoryBuffer(2)
    buffer.add(WarpGrad(model, 0.1, warp="warp").clone(), None)
    model.b.requires_grad_(True)
    model.a.requires_grad_(False)
    with pytest.raises(ValueError, match="of another model or with other warp"):
        next(buffer.replay(WarpGrad(model, 0.1, warp="warp")))


def test_a_learner_shows_its_own_rates():
    meta = ARUBA(Warped(), 0.1, zeta=0.01)
    fixed = meta.clone(lr=0.05)
    assert all(torch.equal(r, torch.full_like(r, 0.05)) for r in fixed.rates())
    falling = meta.clone(plus=100.0)
    before = [rate.clone() for rate in falling.rates()]
    falling.adapt(loss_of(falling))
    for was, now in zip(before, falling.rates(), strict=True):
        assert (now < was).all()
    old = meta.clone()
    learner = meta.clone()
    for _ in range(3):
        learner.adapt(loss_of(learner))
    meta.collect(learner)
    for was, now in zip(before, old.rates(), strict=True):
        assert torch.equal(was, now)
    assert not torch.equal(meta.rates()[0], before[0])
