"""ARUBA against closed forms on quadratics and against a transcription."""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from learn2learn.algorithms import MAML
from torch import nn
from torch.nn import functional as F
from untouched import untouched

from l2l_evograd.algorithms.aruba import ARUBA

pytestmark = pytest.mark.usefixtures("float64")

KINDS = pytest.mark.parametrize("kind", ["coordinate", "parameter", "one"])


class Point(nn.Module):
    """θ itself."""

    def __init__(self, *values):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(values))

    def forward(self):
        return self.theta


def quadratic(curvature, centre):
    return lambda theta: 0.5 * (curvature * (theta - centre).square()).sum()


def adapted(meta, loss, steps, **options):
    learner = meta.clone(**options)
    for _ in range(steps):
        learner.adapt(loss(learner()))
    return learner


def set_statistics(meta, b, g):
    meta.distances.tensors[0].copy_(b)
    meta.gradients.tensors[0].copy_(g)
    meta._priors = 0.0, 0.0


def test_a_sequence_of_tasks_has_its_closed_form():
    size, steps, lr, zeta = 3, 4, 0.1, 0.5
    model = Point(*torch.randn(size).tolist())
    meta = ARUBA(model, lr, zeta)
    optimizer = torch.optim.SGD(meta.parameters(), lr=0.3)
    phi = model.theta.detach().clone()
    b = torch.full((size,), (lr * zeta) ** 2)
    g = torch.full((size,), zeta**2)
    for t in range(1, 26):
        d, a = 0.5 + torch.rand(size), torch.randn(size)
        eta = (b / g).sqrt()
        assert torch.allclose(meta.rates()[0], eta, rtol=1e-13)
        learner = adapted(meta, quadratic(d, a), steps)
        q, e = 1 - eta * d, phi - a
        assert torch.allclose(learner(), a + q**steps * e, rtol=1e-12)
        b = b + 0.5 * ((1 - q**steps) * e).square() + (lr * zeta) ** 2 / (t + 1)
        series = (1 - q ** (2 * steps)) / (1 - q**2)
        g = g + d**2 * e**2 * series + zeta**2 / (t + 1)
        phi = phi - 0.3 * (1 - q**steps) * e
        meta.collect(learner)
        optimizer.zero_grad()
        learner.init_loss().backward()
        optimizer.step()
    assert torch.allclose(model.theta, phi, rtol=1e-11)
    assert torch.allclose(meta.rates()[0], (b / g).sqrt(), rtol=1e-11)
    assert meta.tasks == 25


def test_the_worked_example():
    model = Point(1.0, -2.0)
    meta = ARUBA(model, 0.1, zeta=1.0)
    learner = adapted(meta, quadratic(torch.tensor([1.0, 0.5]), torch.zeros(2)), 3)
    meta.collect(learner)
    learner.init_loss().backward()
    for found, expected in (
        (meta.distances.tensors[0], [0.0517205, 0.05568378125]),
        (meta.gradients.tensors[0], [3.9661, 4.21700625]),
        (meta.rates()[0], [0.11419564117, 0.11491116747]),
        (model.theta.grad, [0.271, -0.28525]),
    ):
        assert torch.allclose(found, torch.tensor(expected), rtol=1e-10)


@pytest.mark.parametrize("steps", [1, 2])
def test_one_or_two_steps_drive_the_rates_to_zero(steps):
    meta = ARUBA(Point(1.0), 0.5, zeta=0.1)
    rates = []
    for _ in range(400):
        meta.collect(adapted(meta, quadratic(torch.ones(1), torch.randn(1)), steps))
        rates.append(meta.rates()[0].item())
    assert rates[-1] < 0.9 * rates[0]
    assert rates[399] < rates[199] < rates[99] < rates[49]


def test_a_coordinate_without_a_task_keeps_its_rate():
    meta = ARUBA(Point(1.0, 0.3), 0.1)
    for _ in range(10):
        centre = torch.tensor([torch.randn(()).item(), 0.3])
        meta.collect(adapted(meta, quadratic(torch.ones(2), centre), 5))
    rates = meta.rates()[0]
    assert torch.allclose(rates[1], torch.tensor(0.1), rtol=1e-14)
    assert abs(rates[0] - 0.1) > 1e-3


def test_a_diagonal_change_of_variables_changes_nothing():
    scale = torch.tensor([0.2, 5.0, 1.7])
    half = torch.randn(3, 3)
    curvature = half @ half.T
    start = torch.tensor([1.0, -0.5, 2.0])
    metas = ARUBA(Point(*start.tolist()), 0.02), ARUBA(Point(*(start / scale)), 0.02)
    set_statistics(metas[0], torch.full((3,), 4e-4), torch.ones(3))
    set_statistics(metas[1], 4e-4 / scale**2, scale**2)
    for _ in range(6):
        centre = torch.randn(3)

        def loss(theta, centre=centre):
            return 0.5 * (theta - centre) @ curvature @ (theta - centre)

        metas[0].collect(adapted(metas[0], loss, 4))
        metas[1].collect(adapted(metas[1], lambda u, loss=loss: loss(scale * u), 4))
    rates = [meta.rates()[0] for meta in metas]
    assert torch.allclose(rates[0], rates[1] * scale**2, rtol=1e-13)
    assert (rates[0] - 0.02).abs().max() > 1e-3


def test_plus_is_adagrad_one_step_behind():
    model = Point(1.0, -2.0)
    meta = ARUBA(model, 0.3, zeta=0.7)
    loss = quadratic(torch.tensor([1.0, 3.0]), torch.tensor([0.5, 0.5]))
    for c in (0.0, 1.0, 10.0):
        theta = model.theta.detach().clone().requires_grad_()
        b, g = meta.distances.tensors[0], meta.gradients.tensors[0].clone()
        learner = meta.clone(plus=c)
        for _ in range(6):
            learner.adapt(loss(learner()))
            (slope,) = torch.autograd.grad(loss(theta), theta)
            theta = (theta - (b / g).sqrt() * slope).detach().requires_grad_()
            g = g + c * slope.square()
            assert torch.allclose(learner(), theta, rtol=1e-13)
    plain = adapted(meta, loss, 6)
    assert torch.equal(plain(), adapted(meta, loss, 6, plus=0.0)())


def make_net():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def minibatches(steps):
    return [(torch.randn(5, 3), torch.randn(5, 2)) for _ in range(steps)]


def transcribed(model, tasks, lr, zeta, p, kind, s):
    """The algorithm line by line, with Reptile after every task."""
    phi = [param.detach().clone() for param in model.parameters()]
    b = [torch.full_like(x, (lr * zeta) ** 2) for x in phi]
    g = [torch.full_like(x, zeta**2) for x in phi]
    names = [name for name, _ in model.named_parameters()]
    for t, task in enumerate(tasks, start=1):
        if kind == "coordinate":
            eta = [(x / y).sqrt() for x, y in zip(b, g, strict=True)]
        elif kind == "parameter":
            eta = [(x.sum() / y.sum()).sqrt() for x, y in zip(b, g, strict=True)]
        else:
            total = sum(x.sum() for x in b) / sum(y.sum() for y in g)
            eta = [total.sqrt()] * len(b)
        theta, squares = phi, [torch.zeros_like(x) for x in phi]
        for x, y in task:
            theta = [part.detach().requires_grad_() for part in theta]
            named = dict(zip(names, theta, strict=True))
            loss = F.mse_loss(torch.func.functional_call(model, named, (x,)), y)
            slopes = torch.autograd.grad(loss, theta)
            squares = [a + c * c for a, c in zip(squares, slopes, strict=True)]
            moved = zip(theta, eta, slopes, strict=True)
            theta = [part.detach() - e * c for part, e, c in moved]
        for i, end in enumerate(theta):
            b[i] = b[i] + 0.5 * (phi[i] - end) ** 2 + (lr * zeta) ** 2 / (t + 1) ** p
            g[i] = g[i] + squares[i] + zeta**2 / (t + 1) ** p
        phi = [x + s * (y - x) for x, y in zip(phi, theta, strict=True)]
    return SimpleNamespace(phi=phi, b=b, g=g)


@KINDS
@pytest.mark.parametrize("p", [1.0, 0.0, 2.0])
def test_the_algorithm_is_its_transcription(kind, p):
    model = make_net()
    tasks = [minibatches(4) for _ in range(5)]
    expected = transcribed(model, tasks, 0.1, 0.3, p, kind, s=0.6)
    meta = ARUBA(model, 0.1, 0.3, rates=kind, p=p)
    optimizer = torch.optim.SGD(meta.parameters(), lr=0.6)
    for task in tasks:
        learner = meta.clone()
        for x, y in task:
            learner.adapt(F.mse_loss(learner(x), y))
        meta.collect(learner)
        optimizer.zero_grad()
        learner.init_loss().backward()
        optimizer.step()
    for found, wanted in (
        (list(model.parameters()), expected.phi),
        (meta.distances.tensors, expected.b),
        (meta.gradients.tensors, expected.g),
    ):
        for own, other in zip(found, wanted, strict=True):
            assert torch.allclose(own, other, rtol=1e-11, atol=1e-14)


def test_a_fixed_rate_makes_it_reptile_and_weights_make_it_federated_averaging():
    model = make_net()
    start = [p.detach().clone() for p in model.parameters()]
    meta = ARUBA(model, 0.1)
    tasks, sizes = [minibatches(3) for _ in range(3)], torch.tensor([2.0, 3.0, 5.0])
    ends = []
    for task in tasks:
        twin = copy.deepcopy(model)
        optimizer = torch.optim.SGD(twin.parameters(), lr=0.05)
        for x, y in task:
            optimizer.zero_grad()
            F.mse_loss(twin(x), y).backward()
            optimizer.step()
        ends.append([p.detach() for p in twin.parameters()])
    for task, weight in zip(tasks, sizes / sizes.sum(), strict=True):
        learner = meta.clone(lr=0.05)
        for x, y in task:
            learner.adapt(F.mse_loss(learner(x), y))
        (weight * learner.init_loss()).backward()
    torch.optim.SGD(meta.parameters(), lr=1.0).step()
    for place, param in enumerate(model.parameters()):
        shares = zip(sizes / sizes.sum(), ends, strict=True)
        average = sum(share * end[place] for share, end in shares)
        assert torch.allclose(param, average, rtol=1e-12)
        assert not torch.allclose(param, start[place])


def test_a_query_loss_gives_the_gradient_of_first_order_maml():
    model = make_net()
    (x, y), (x_query, y_query) = minibatches(2)
    learner = ARUBA(model, 0.1).clone()
    other = copy.deepcopy(model)
    maml = MAML(other, 0.1, first_order=True).clone()
    for one in (learner, maml):
        for _ in range(3):
            one.adapt(F.mse_loss(one(x), y))
        F.mse_loss(one(x_query), y_query).backward()
    for own, expected in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(own.grad, expected.grad, rtol=1e-12)


@KINDS
def test_the_order_of_tasks_at_fixed_statistics_does_not_matter(kind):
    model = make_net()
    tasks = [minibatches(3) for _ in range(4)]

    def after(order):
        meta = ARUBA(model, 0.1, rates=kind, p=0.0)
        learners = [meta.clone() for _ in order]
        for learner, place in zip(learners, order, strict=True):
            for x, y in tasks[place]:
                learner.adapt(F.mse_loss(learner(x), y))
        for learner in learners:  # after the round, so all have the same rates
            meta.collect(learner)
        return meta.rates()

    for own, other in zip(after([0, 1, 2, 3]), after([2, 0, 3, 1]), strict=True):
        assert torch.allclose(own, other, rtol=1e-13)


def test_nothing_of_the_user_changes():
    model = make_net()
    meta = ARUBA(model, 0.1)
    data = minibatches(3)
    with untouched(model):
        learner = meta.clone()
        for x, y in data:
            learner.adapt(F.mse_loss(learner(x), y))
        meta.collect(learner)
        meta.rates()
        meta.clone(plus=3.0)


def test_weights_without_a_gradient_keep_their_rate():
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "unused": nn.Linear(3, 2)})
    meta = ARUBA(model, 0.1, allow_unused=True)
    for x, y in minibatches(3):
        learner = meta.clone()
        for _ in range(3):
            learner.adapt(F.mse_loss(learner.used(x), y))
        meta.collect(learner)
    rates = dict(zip(dict(model.named_parameters()), meta.rates(), strict=True))
    assert torch.allclose(rates["unused.weight"], torch.tensor(0.1), rtol=1e-14)
    assert not torch.allclose(rates["used.weight"], torch.tensor(0.1), rtol=1e-3)


def test_frozen_weights_have_no_statistics():
    model = make_net()
    model[0].requires_grad_(False)
    meta = ARUBA(model, 0.1)
    assert [tuple(rate.shape) for rate in meta.rates()] == [(2, 4), (2,)]


def go_on(meta, tasks):
    for task in tasks:
        learner = meta.clone()
        for x, y in task:
            learner.adapt(F.mse_loss(learner(x), y))
        meta.collect(learner)
        meta.zero_grad()
        learner.init_loss().backward()
        with torch.no_grad():
            for param in meta.module.parameters():
                param -= 0.5 * param.grad


def assert_equal(meta, other):
    own, theirs = meta.state_dict(), other.state_dict()
    assert list(own) == list(theirs)
    for name, value in own.items():
        assert torch.equal(value, theirs[name]), name


def test_the_state_dict_holds_all_that_a_run_needs_to_go_on():
    tasks = [minibatches(3) for _ in range(6)]
    whole = ARUBA(make_net(), 0.1, 0.2)
    go_on(whole, tasks[:3])
    state = copy.deepcopy(whole.state_dict())
    go_on(whole, tasks[3:])
    resumed = ARUBA(make_net(), 0.1, 0.2)
    resumed.load_state_dict(state)
    go_on(resumed, tasks[3:])
    assert_equal(whole, resumed)
    model_keys = [key for key in state if key.startswith("module.")]
    assert model_keys == [f"module.{key}" for key in make_net().state_dict()]
    assert {id(p) for p in whole.parameters()} == {
        id(p) for p in whole.module.parameters()
    }


def test_copies_of_learners_and_of_algorithms_go_on():
    meta = ARUBA(make_net(), 0.1)
    first, second = minibatches(2)
    learner = meta.clone(plus=0.0)
    learner.adapt(F.mse_loss(learner(first[0]), first[1]))
    twins = [copy.deepcopy(learner), pickle.loads(pickle.dumps(learner))]
    for one in (learner, *twins):
        one.adapt(F.mse_loss(one(second[0]), second[1]))
        assert torch.equal(one(first[0]), learner(first[0]))
    twins[0].init_loss().backward()  # a copy leads to the same initial weights
    gradients = [p.grad for p in meta.module.parameters()]
    meta.zero_grad()
    learner.init_loss().backward()
    for param, gradient in zip(meta.module.parameters(), gradients, strict=True):
        assert torch.equal(param.grad, gradient)
    other = copy.deepcopy(meta)
    other.collect(twins[0])
    meta.collect(learner)
    assert_equal(meta, other)
    assert other.module[0].weight is not meta.module[0].weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_are_in_single_precision_at_least(dtype):
    model = make_net().to(dtype)
    meta = ARUBA(model, 0.1)
    for x, y in minibatches(3):
        learner = meta.clone()
        for _ in range(3):
            learner.adapt(F.mse_loss(learner(x.to(dtype)), y.to(dtype)))
        meta.collect(learner)
        assert {w.dtype for w in learner.module.parameters()} == {dtype}
    assert {b.dtype for b in meta.distances.tensors} == {torch.float32}
    assert all(torch.isfinite(rate).all() for rate in meta.rates())


def test_bad_numbers_are_refused():
    model = make_net()
    for lr in (0, -1.0, float("nan"), None):
        with pytest.raises(ValueError, match="expected lr to be positive and finite"):
            ARUBA(model, lr)
    for lr in (torch.tensor(0.1), [torch.tensor(0.1)]):
        with pytest.raises(ValueError, match="lr to be a number, because the rates"):
            ARUBA(model, lr)
    with pytest.raises(ValueError, match="expected zeta to be positive"):
        ARUBA(model, 0.1, zeta=0)
    with pytest.raises(ValueError, match="expected p to be"):
        ARUBA(model, 0.1, p=-1)
    with pytest.raises(ValueError, match="rates to be one of 'coordinate', 'param"):
        ARUBA(model, 0.1, rates="layer")
    with pytest.raises(ValueError, match="expected plus to be"):
        ARUBA(model, 0.1).clone(plus=-1)
    with pytest.raises(ValueError, match="lr or plus, got both 0.1 and 2"):
        ARUBA(model, 0.1).clone(lr=0.1, plus=2)
    with pytest.raises(ValueError, match="expected lr to be positive"):
        ARUBA(model, 0.1).clone(lr=0)
    with pytest.raises(ValueError, match="first_order to be None or True, got False"):
        ARUBA(model, 0.1).clone(first_order=False)
    learner = ARUBA(model, 0.1).clone(first_order=True)
    with pytest.raises(ValueError, match="first_order to be None or True, got False"):
        learner.adapt(learner(torch.ones(1, 3)).sum(), first_order=False)


def test_learners_that_cannot_be_collected_are_refused():
    meta = ARUBA(make_net(), 0.1)
    x, y = minibatches(1)[0]
    with pytest.raises(TypeError, match="collect.. belongs to a clone"):
        meta.collect(meta)
    with pytest.raises(
        TypeError, match="expected a clone of this ARUBA, got Sequential"
    ):
        meta.collect(make_net())
    with pytest.raises(TypeError, match="init_loss.. belongs to a clone"):
        meta.init_loss()
    for call in ("collect", "init_loss"):
        learner = meta.clone()
        with pytest.raises(ValueError, match=f"one inner step before {call}"):
            learner.init_loss() if call == "init_loss" else meta.collect(learner)
    learner.adapt(F.mse_loss(learner(x), y))
    meta.collect(learner)
    with pytest.raises(
        ValueError, match="collected before: .* one clone for each task"
    ):
        meta.collect(learner)
    learner = meta.clone(plus=1.0)
    learner.adapt(F.mse_loss(learner(x), y))
    with pytest.raises(ValueError, match="got one of ARUBA.. .plus., whose gradients"):
        meta.collect(learner)
    other = ARUBA(nn.Linear(3, 2), 0.1).clone()
    other.adapt(F.mse_loss(other(x), y))
    with pytest.raises(
        ValueError, match="with 4 adapted parameters, got one of another"
    ):
        meta.collect(other)
    assert meta.tasks == 1
