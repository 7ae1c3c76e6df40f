"""WarpGrad's gradients against closed forms, a naive transcription, and higher."""

import copy
import gc
import itertools
import pickle
import weakref

import higher
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from untouched import untouched
from warped import WARPS, Quadratic, Warped, batches, is_warp, objective

from l2l_evograd import EvoGradMetaOptimizer, Exact, Guided
from l2l_evograd.algorithms.warpgrad import WarpGrad

pytestmark = pytest.mark.usefixtures("float64")

LR = 0.1


def close(got, expected, tolerance=1e-12):
    return torch.allclose(got, expected, rtol=tolerance, atol=tolerance)


def trained(meta, steps):
    """Carry out one task online; return the learner."""
    learner = meta.clone()
    for support, query in steps:
        learner.adapt(F.cross_entropy(learner(support[0]), support[1]))
        F.cross_entropy(learner(query[0]), query[1]).backward()
    return learner


def warp_grads(model):
    return {n: p.grad for n, p in model.named_parameters() if is_warp(n)}


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [1, 4])
def test_the_warp_gradient_is_that_of_the_objective(first_order, steps):
    model, data = Warped(), batches(steps)
    meta = WarpGrad(model, LR, warp=WARPS, first_order=first_order)
    trained(meta, data)
    expected = objective(model, data, LR, first_order)
    for name, grad in warp_grads(model).items():
        assert close(grad, expected[name])
    assert all(p.grad is None for n, p in model.named_parameters() if not is_warp(n))


def test_exact_and_first_order_differ():
    model, data = Warped(), batches(3)
    exact, first = (objective(model, data, 0.5, f) for f in (False, True))
    assert not all(close(exact[n], first[n], 1e-3) for n in exact)


@pytest.mark.parametrize(
    "estimator, tolerance",
    [(Exact("forward"), 1e-12), (Exact("reverse"), 1e-12), (Guided(), 1e-5)],
)
def test_estimators_give_the_exact_gradient(estimator, tolerance):
    model, data = Warped(), batches(3)
    trained(WarpGrad(model, LR, warp=WARPS, estimator=estimator), data)
    expected = objective(model, data, LR, first_order=False)
    for name, grad in warp_grads(model).items():
        assert close(grad, expected[name], tolerance)


def test_a_population_estimates_the_exact_gradient():
    draws, lr = 400, 0.5  # a long step, whose derivative is more than the noise
    torch.manual_seed(0)
    model, data = Warped(), batches(1)
    expected = torch.cat([g.flatten() for g in objective(model, data, lr, 0).values()])
    first = torch.cat([g.flatten() for g in objective(model, data, lr, 1).values()])
    meta = WarpGrad(model, lr, warp=WARPS, estimator="evograd")
    meta.generator.manual_seed(1)
    found = []
    for _ in range(draws):
        meta.zero_grad()
        trained(meta, data)
        found.append(torch.cat([g.flatten() for g in warp_grads(model).values()]))
    found = torch.stack(found)
    error = found.std(dim=0) / draws**0.5
    assert ((found.mean(dim=0) - expected).abs() <= 4 * error + 1e-6).all()
    assert ((found.mean(dim=0) - first).abs() > 4 * error + 1e-6).any()


@pytest.mark.parametrize("first_order", [False, True])
def test_one_step_is_what_higher_gives_for_a_group_of_rate_zero(first_order):
    model, data = Warped(), batches(1)
    (support, query), *_ = data
    trained(WarpGrad(model, LR, warp=WARPS, first_order=first_order), data)
    theta = [p for n, p in model.named_parameters() if not is_warp(n)]
    phi = [p for n, p in model.named_parameters() if is_warp(n)]
    inner = torch.optim.SGD([{"params": theta}, {"params": phi, "lr": 0.0}], lr=LR)
    with higher.innerloop_ctx(
        model, inner, copy_initial_weights=False, track_higher_grads=not first_order
    ) as (fast, fast_inner):
        fast_inner.step(F.cross_entropy(fast(support[0]), support[1]))
        loss = F.cross_entropy(fast(query[0]), query[1])
        # Without the higher gradients, the last point is cut off from the first.
        names = [n for n, _ in model.named_parameters()]
        fast_phi = [
            p for n, p in zip(names, fast.parameters(), strict=True) if is_warp(n)
        ]
        expected = torch.autograd.grad(loss, fast_phi if first_order else phi)
    for parameter, grad in zip(phi, expected, strict=True):
        assert close(parameter.grad, grad)


def test_one_step_is_an_evograd_learner_with_the_warp_as_hyperparameters():
    model, data = Warped(), batches(1)
    trained(WarpGrad(model, LR, warp=WARPS), data)
    found = warp_grads(model)
    model.zero_grad()
    trained(
        EvoGradMetaOptimizer(model, LR, hyperparameters=WARPS, estimator="exact"), data
    )
    for name, grad in warp_grads(model).items():
        assert close(grad, found[name])


def test_linear_warp_layers_are_preconditioned_gradient_descent():
    # f(x) = W(θ V x + b) + c. In γ = W θ V and γ_b = W b + c, the steps are
    # γ − lr W Wᵀ ∇_γ Vᵀ V and γ_b − lr W Wᵀ ∇_{γ_b}.
    before, task, after = nn.Linear(3, 4, bias=False), nn.Linear(4, 5), nn.Linear(5, 2)
    meta = WarpGrad(nn.Sequential(before, task, after), LR, warp=[before, after])
    learner, x, y = meta.clone(), torch.randn(8, 3), torch.randn(8, 2)
    v, w, c = before.weight.detach(), after.weight.detach(), after.bias.detach()
    gamma = (w @ task.weight @ v).detach().requires_grad_()
    gamma_b = (w @ task.bias + c).detach().requires_grad_()
    for _ in range(10):
        learner.adapt((learner(x) - y).pow(2).sum().sigmoid())
        loss = (x @ gamma.T + gamma_b - y).pow(2).sum().sigmoid()
        g, g_b = torch.autograd.grad(loss, [gamma, gamma_b])
        gamma = (gamma - LR * w @ w.T @ g @ v.T @ v).detach().requires_grad_()
        gamma_b = (gamma_b - LR * w @ w.T @ g_b).detach().requires_grad_()
        assert close(learner(x), x @ gamma.T + gamma_b, 1e-10)


@pytest.mark.parametrize("estimator", [None, "guided"])
@pytest.mark.parametrize("init", ["maml", "fomaml"])
@pytest.mark.parametrize("first_order", [False, True])
def test_a_quadratic_has_the_gradients_of_its_closed_form(first_order, init, estimator):
    model, size, steps = Quadratic(), 4, 3
    halves = torch.randn(2, size, size)
    h, h_q = halves @ halves.mT / size + torch.eye(size)
    a, a_q = torch.randn(2, size)

    def inner(gamma):
        return 0.5 * (gamma - a) @ h @ (gamma - a)

    def outer(gamma):
        return 0.5 * (gamma - a_q) @ h_q @ (gamma - a_q)

    meta = WarpGrad(
        model, LR, "warp", first_order=first_order, init=init, estimator=estimator
    )
    learner = meta.clone()
    w, theta = model.warp.detach(), model.theta.detach().clone()
    expected = torch.zeros_like(w)
    for k in range(steps):
        learner.adapt(inner(learner()))
        query = outer(learner())
        if k == steps - 1:
            query = query + learner.init_loss(query)
        query.backward()
        g = h @ (w @ theta - a)
        after = theta - LR * w.T @ g
        r = h_q @ (w @ after - a_q)
        expected += torch.outer(r, after)
        if not first_order:
            expected -= LR * torch.outer(g, w.T @ r)
            expected -= LR * torch.outer(h @ w @ w.T @ r, theta)
        theta = after
    assert close(model.warp.grad, expected)
    if init == "maml":
        for _ in range(steps):
            r = r - LR * h @ w @ w.T @ r
    assert close(model.theta.grad, w.T @ r)


@pytest.mark.parametrize("first_order", [False, True])
def test_learning_from_tasks_of_one_curvature_finds_newtons_step(first_order):
    size, lr, steps = 3, 0.1, 1500
    torch.manual_seed(0)
    half = torch.randn(size, size)
    h = half @ half.T / size + torch.eye(size)
    model = Quadratic(size)
    with torch.no_grad():
        model.warp.copy_(torch.eye(size))
        model.theta.zero_()
    meta = WarpGrad(model, lr, "warp", first_order=first_order)
    optimizer = torch.optim.Adam(meta.warp_parameters(), lr=0.05)
    fading = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 1e-3, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        a = torch.randn(8, size)

        def mean_loss(gamma, a=a):
            off = gamma - a
            return 0.5 * ((off @ h) * off).sum(dim=1).mean()

        # All tasks at once: rows of θ, as the tasks share W.
        learner = meta.clone()
        learner.module._parameters["theta"] = torch.zeros(size, 8).requires_grad_()
        learner.adapt(8 * mean_loss(learner().T))
        mean_loss(learner().T).backward()
        optimizer.step()
        fading.step()
    w = model.warp.detach()
    assert (lr * w @ w.T @ h - torch.eye(size)).norm() < 1e-4


def test_warp_parameters_do_not_move_in_adaptation():
    model = Warped()
    meta = WarpGrad(model, 0.5, warp=WARPS, init="maml")
    learner = meta.clone()
    x, y = batches(1)[0][0]
    with untouched(model):
        for _ in range(3):
            learner.adapt(F.cross_entropy(learner(x), y))
    for name, parameter in learner.module.named_parameters():
        original = model.get_parameter(name)
        assert (parameter is original) == is_warp(name)
        assert torch.equal(parameter, original) == is_warp(name)


def test_losses_of_all_steps_may_be_summed_over_tasks_but_not_over_steps():
    model, data = Warped(), batches(2)
    meta = WarpGrad(model, LR, warp=WARPS)
    last = []
    for support, query in data:  # one task each
        learner = meta.clone()
        for _ in range(2):
            learner.adapt(F.cross_entropy(learner(support[0]), support[1]))
        last.append(F.cross_entropy(learner(query[0]), query[1]))
    sum(last).backward()
    assert all(g is not None for g in warp_grads(model).values())

    learner, total = meta.clone(), 0
    for support, query in data:
        learner.adapt(F.cross_entropy(learner(support[0]), support[1]))
        total = total + F.cross_entropy(learner(query[0]), query[1])
    with pytest.raises(
        RuntimeError, match="backward.. of a query loss before the next"
    ):
        total.backward()


class Saved:
    """A tensor that autograd saved, in a form that can be watched."""

    def __init__(self, tensor):
        self.tensor = tensor.detach()  # without its graph, which would be a cycle


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("query", [False, True])
def test_only_the_graph_of_the_last_step_is_kept(first_order, query):
    saved = []

    def pack(tensor):
        packed = Saved(tensor)
        saved.append(weakref.ref(packed))
        return packed

    def alive_after(steps):
        saved.clear()
        learner = WarpGrad(Warped(), LR, WARPS, first_order=first_order).clone()
        (x, y), other = batches(1)[0]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda p: p.tensor):
            for _ in range(steps):
                learner.adapt(F.cross_entropy(learner(x), y))
                if query:
                    F.cross_entropy(learner(other[0]), other[1]).backward()
        gc.collect()
        assert learner.module is not None
        return sum(ref() is not None for ref in saved)

    assert alive_after(3) == alive_after(9)
    assert bool(alive_after(3)) is not first_order


def test_learned_rates_get_the_gradient_of_one_step():
    for first_order in (False, True):
        model, data = Warped(), batches(3)
        rates = [
            nn.Parameter(torch.full_like(p, LR))
            for n, p in model.named_parameters()
            if not is_warp(n)
        ]
        meta = WarpGrad(model, rates, warp=WARPS, first_order=first_order)
        trained(meta, data)
        plain = warp_grads(model)
        expected = objective(model, data, LR, first_order)
        assert all(close(plain[name], expected[name]) for name in expected)
        # A central difference of the last query loss with respect to all rates.
        (support, query) = data[-1]

        def last(lr, model=model, data=data, support=support, query=query):
            learner = WarpGrad(model, LR, warp=WARPS, first_order=True).clone()
            for own, _ in data[:-1]:
                learner.adapt(F.cross_entropy(learner(own[0]), own[1]))
            learner.lr = lr
            learner.adapt(F.cross_entropy(learner(support[0]), support[1]))
            return F.cross_entropy(learner(query[0]), query[1]).item()

        for rate in rates:
            rate.grad = None
        learner = meta.clone()
        for own, _ in data:
            learner.adapt(F.cross_entropy(learner(own[0]), own[1]))
        F.cross_entropy(learner(query[0]), query[1]).backward()
        slope = (last(LR + 1e-6) - last(LR - 1e-6)) / 2e-6
        assert abs(sum(rate.grad.sum() for rate in rates) - slope) < 1e-8


@pytest.mark.parametrize("init", [None, "maml", "leap"])
def test_deep_copies_and_pickles_go_on_from_where_they_are(init):
    model, data = Warped(), batches(3)
    meta = WarpGrad(model, LR, warp=WARPS, init=init)
    learner = trained(meta, data[:2])
    model.zero_grad()
    (support, query) = data[2]
    twins = [copy.deepcopy(learner), pickle.loads(pickle.dumps(learner))]
    outputs, grads = [], []
    for one in (learner, *twins):
        one.adapt(F.cross_entropy(one(support[0]), support[1]))
        F.cross_entropy(one(query[0]), query[1]).backward()
        outputs.append(one(query[0]))
        grads.append([p.grad for p in one.warp_parameters()])
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])
    for first, second, third in zip(*grads, strict=True):
        assert torch.equal(first, second) and torch.equal(first, third)
    own = [p for one in (learner, *twins) for p in one.warp_parameters()]
    assert len({id(p) for p in own}) == len(own)
    again = copy.deepcopy(meta)
    assert [tuple(p.shape) for p in again.warp_parameters()] == [
        tuple(p.shape) for p in meta.warp_parameters()
    ]
    trained(again, data)


def test_the_state_dict_is_that_of_learn2learns_maml():
    model = Warped()
    keys = [f"module.{key}" for key in model.state_dict()]
    assert list(WarpGrad(model, LR, warp=WARPS).state_dict()) == keys


def test_groups_of_parameters_are_apart_and_complete():
    model = Warped()
    meta = WarpGrad(model, LR, warp=[model.warp1, "warp2"])
    ids = [
        id(p) for p in itertools.chain(meta.warp_parameters(), meta.init_parameters())
    ]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    assert [id(p) for p in meta.warp_parameters()] == [
        id(p) for n, p in model.named_parameters() if is_warp(n)
    ]


def test_a_clone_may_drop_the_derivative_of_the_step():
    model, data = Warped(), batches(2)
    meta = WarpGrad(model, LR, warp=WARPS)
    learner = meta.clone(first_order=True)
    for support, query in data:
        learner.adapt(F.cross_entropy(learner(support[0]), support[1]))
        F.cross_entropy(learner(query[0]), query[1]).backward()
    expected = objective(model, data, LR, first_order=True)
    for name, grad in warp_grads(model).items():
        assert close(grad, expected[name])


def test_long_ways_are_looked_at_again_and_again():
    # Every 100th call looks at the graph, of which earlier queries freed a part.
    model = Warped()
    meta = WarpGrad(model, LR, warp=WARPS)
    learner = trained(meta, 60 * batches(1))
    assert torch.isfinite(learner(torch.randn(2, 4))).all()
