"""What surrounds ARUBA's rule: copies, conversions, changed models, modes of grad."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from untouched import untouched

from l2l_evograd import ARUBA
from l2l_evograd.checks import NotFiniteError

pytestmark = pytest.mark.usefixtures("float64")

KINDS = pytest.mark.parametrize("kind", ["coordinate", "parameter", "one"])
COPIES = pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)


def make_net():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def make_task():
    return torch.randn(5, 3), torch.randn(5, 2)


def adapted(learner, task, steps=3):
    for _ in range(steps):
        learner.adapt(F.mse_loss(learner(task[0]), task[1]))
    return learner


def trained(meta, tasks=3):
    for _ in range(tasks):
        meta.collect(adapted(meta.clone(), make_task()))
    return meta


def statistics(meta):
    return [t.clone() for t in (*meta.distances.tensors, *meta.gradients.tensors)]


def shared(kind, b, g):
    if kind == "coordinate":
        return [(x / y).sqrt() for x, y in zip(b, g, strict=True)]
    if kind == "parameter":
        return [(x.sum() / y.sum()).sqrt() for x, y in zip(b, g, strict=True)]
    return [(sum(x.sum() for x in b) / sum(y.sum() for y in g)).sqrt()] * len(b)


@KINDS
@pytest.mark.parametrize("c", [0.0, 1.0, 10.0])
def test_plus_adds_the_gradients_of_earlier_steps_to_what_shares_a_rate(kind, c):
    model, (x, y) = make_net(), make_task()
    meta = trained(ARUBA(model, 0.1, rates=kind))
    before = statistics(meta)
    b, g = meta.distances.tensors, [t.clone() for t in meta.gradients.tensors]
    names = [name for name, _ in model.named_parameters()]
    theta = [p.detach().requires_grad_() for p in model.parameters()]
    for _ in range(4):
        named = dict(zip(names, theta, strict=True))
        loss = F.mse_loss(torch.func.functional_call(model, named, (x,)), y)
        slopes = torch.autograd.grad(loss, theta)
        moves = zip(theta, shared(kind, b, g), slopes, strict=True)
        theta = [(p - rate * s).detach().requires_grad_() for p, rate, s in moves]
        g = [old + c * s.square() for old, s in zip(g, slopes, strict=True)]
    learner = adapted(meta.clone(plus=c), (x, y), 4)
    for own, expected in zip(learner.module.parameters(), theta, strict=True):
        assert torch.allclose(own, expected, rtol=1e-12, atol=1e-15)
    assert all(map(torch.equal, statistics(meta), before))


def test_plus_follows_torchs_adagrad_from_a_sum_that_lacks_one_gradient():
    # The gradient is constant, so torch's sum is one gradient ahead in every step.
    slope = torch.tensor([0.3, -2.0])
    model = nn.Module()
    model.weight = nn.Parameter(torch.tensor([1.0, -1.0]))
    meta = ARUBA(model, 0.1, zeta=3.0)
    for place, start in enumerate((9.0 - slope.square()).tolist()):
        one = nn.Parameter(model.weight.detach()[place].clone())
        adagrad = torch.optim.Adagrad(
            [one], lr=0.1 * 3.0, initial_accumulator_value=start, eps=0.0
        )
        learner = meta.clone(plus=1.0)
        for _ in range(10):
            learner.adapt((slope * learner.weight).sum())
            one.grad = slope[place].clone()
            adagrad.step()
            assert torch.allclose(learner.weight[place], one, rtol=1e-13)


@pytest.mark.parametrize("steps", [3, 4, 5, 10, 50])
def test_the_fixed_point_solves_its_equation(steps):
    low, high = 0.3, 0.9  # Δb / Δg = η², times the curvature squared
    for _ in range(200):
        x = (low + high) / 2
        power = (1 - x) ** steps
        ratio = (1 - power) * (1 - (1 - x) ** 2) / (2 * (1 + power))
        low, high = (x, high) if ratio > x * x else (low, x)
    if steps == 3:
        assert x == pytest.approx((5**0.5 - 1) / 2, rel=1e-14)
    curvature = torch.tensor([2.0, 0.1])
    model = nn.Module()
    model.weight = nn.Parameter(torch.tensor([1.0, -1.0]))
    meta = ARUBA(model, 1.0)
    meta._priors = 0.0, 0.0
    meta.distances.tensors[0].copy_((x / curvature).square())
    meta.gradients.tensors[0].fill_(1.0)
    for _ in range(20):
        centre, learner = torch.randn(2), meta.clone()
        for _ in range(steps):
            moved = learner.weight - centre
            learner.adapt(0.5 * (curvature * moved.square()).sum())
        meta.collect(learner)
    assert torch.allclose(meta.rates()[0], x / curvature, rtol=1e-12)


def test_training_at_a_fixed_rate_collects_the_statistics_at_that_rate():
    meta, (x, y) = ARUBA(make_net(), 0.1, zeta=0.5), make_task()
    twin = copy.deepcopy(meta.module)
    squares = [torch.zeros_like(p) for p in twin.parameters()]
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.02)
    for _ in range(3):
        optimizer.zero_grad()
        F.mse_loss(twin(x), y).backward()
        for total, param in zip(squares, twin.parameters(), strict=True):
            total += param.grad.square()
        optimizer.step()
    meta.collect(adapted(meta.clone(lr=0.02), (x, y)))
    for own, square in zip(meta.gradients.tensors, squares, strict=True):
        assert torch.allclose(own, 0.25 + square + 0.25 / 2, rtol=1e-13)
    pairs = zip(meta.module.parameters(), twin.parameters(), strict=True)
    for own, (start, end) in zip(meta.distances.tensors, pairs, strict=True):
        expected = 1.5 * 0.05**2 + 0.5 * (start - end).square()
        assert torch.allclose(own, expected, rtol=1e-12)
    assert not torch.allclose(meta.rates()[0], torch.tensor(0.1), rtol=1e-3)


@KINDS
@COPIES
@pytest.mark.parametrize("plus", [0.0, 5.0])
def test_a_copy_in_the_middle_of_a_task_goes_on_alike(kind, copied, plus):
    meta, task = trained(ARUBA(make_net(), 0.1, rates=kind)), make_task()
    learner = adapted(meta.clone(plus=plus), task)
    twin = copied(learner)
    for one in (adapted(learner, task), adapted(twin, task)):
        assert torch.equal(one(task[0]), learner(task[0]))
    assert twin.distances.tensors[0] is not meta.distances.tensors[0]


@COPIES
def test_a_copy_of_learner_and_original_together_stays_together(copied):
    meta = trained(ARUBA(make_net(), 0.1))
    other, twin = copied((meta, adapted(meta.clone(), make_task())))
    other.collect(twin)
    twin.init_loss().backward()
    assert (int(meta.tasks), int(other.tasks)) == (3, 4)
    assert all(p.grad is None for p in meta.module.parameters())
    assert all(p.grad is not None for p in other.module.parameters())


@COPIES
def test_a_copy_of_the_original_is_cloned_not_adapted(copied):
    other = copied(trained(ARUBA(make_net(), 0.1)))
    with pytest.raises(TypeError, match="adapt.. belongs to a clone: .* a copy of it"):
        adapted(other, make_task())
    with pytest.raises(TypeError, match="collect.. belongs to a clone"):
        other.collect(copied(other))
    assert trained(other).tasks == 6


@pytest.mark.parametrize("convert", ["float16", "bfloat16"])
def test_a_conversion_to_half_precision_leaves_the_statistics_in_single(convert):
    meta = trained(ARUBA(make_net(), 0.1)).float()
    before = statistics(meta)
    meta.to(getattr(torch, convert))
    assert {p.dtype for p in meta.parameters()} == {getattr(torch, convert)}
    assert all(map(torch.equal, statistics(meta), before))
    assert {t.dtype for t in meta.double().distances.tensors} == {torch.float64}
    assert {t.dtype for t in meta.half().gradients.tensors} == {torch.float32}
    assert {t.device.type for t in meta.to("meta").distances.tensors} == {"meta"}


def test_what_is_done_to_a_learner_does_not_reach_the_originals_statistics():
    meta = trained(ARUBA(make_net(), 0.1))
    before = statistics(meta)
    learner = meta.clone()
    learner.distances.float()
    assert {t.dtype for t in meta.distances.tensors} == {torch.float64}
    assert all(map(torch.equal, statistics(meta), before))


def test_a_clone_of_an_adapted_learner_starts_where_that_one_is():
    meta, task = trained(ARUBA(make_net(), 0.1)), make_task()
    first = adapted(meta.clone(), task)
    second = first.clone()
    with pytest.raises(ValueError, match="one inner step before collect"):
        meta.collect(second)
    adapted(second, task)
    second.init_loss().backward()  # the way from the first learner's weights
    ends = zip(first.module.parameters(), second.module.parameters(), strict=True)
    for param, (start, end) in zip(meta.module.parameters(), ends, strict=True):
        assert torch.allclose(param.grad, start - end, rtol=1e-12)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_clones_are_made_and_collected_in_any_mode(mode):
    meta, task = trained(ARUBA(make_net(), 0.1)), make_task()
    expected = copy.deepcopy(meta)
    with mode():
        learner = meta.clone()
        assert torch.equal(learner(task[0]), meta(task[0]))
        assert not learner(task[0]).requires_grad
    adapted(learner, task)
    with mode():
        meta.collect(learner)
    expected.collect(adapted(expected.clone(), task))
    assert all(map(torch.equal, statistics(meta), statistics(expected)))
    adapted(meta.clone(plus=1.0), task)


def test_gradients_statistics_of_layers_and_random_state_stay():
    layers = [nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.2), nn.Linear(4, 2)]
    model = nn.Sequential(*layers)
    for param in model.parameters():
        param.grad = torch.randn_like(param)
    meta = ARUBA(model, 0.1)
    learners = [meta.clone(), meta.clone(lr=0.3), meta.clone(plus=2.0)]
    with untouched(model, meta.tasks, *statistics(meta)):
        state = torch.get_rng_state()
        for learner in learners:
            adapted(learner, (torch.ones(5, 3), torch.ones(5, 2)))
        torch.set_rng_state(state)  # the dropout of the learners' calls drew from it
    with untouched(model):
        meta.collect(learners[0])
        meta.collect(learners[1])
        learners[2].init_loss()


def test_a_model_may_have_attributes_of_the_same_names():
    model = make_net()
    model.tasks, model.gradients, model.distances = 7, "mine", nn.Identity()
    meta = trained(ARUBA(model, 0.1))
    assert meta.tasks == 3 and "tasks" in meta.state_dict()
    assert (model.tasks, model.gradients) == (7, "mine")


def test_parameters_that_changed_after_the_statistics_began_are_refused():
    def froze(net):
        net[0].requires_grad_(False)

    def replaced(net):
        net[2] = nn.Linear(4, 5)

    def added(net):
        net.append(nn.Linear(2, 2))

    for change, got in (
        (froze, "2.weight, 2.bias"),
        (replaced, "0.weight, 0.bias, 2.weight, 2.bias"),
        (added, "0.weight, 0.bias, 2.weight, 2.bias, 3.weight, 3.bias"),
    ):
        model = make_net()
        meta = ARUBA(model, 0.1)
        learner = adapted(meta.clone(), make_task())
        change(model)
        with pytest.raises(
            ValueError, match=f"the 4 adapted .* belong to, got {got}; after .* a new"
        ):
            meta.clone()
        meta.collect(learner)  # it belongs to the statistics as they are


@pytest.mark.parametrize("factor", [0.0, 1e200])  # a gradient of NaN; ∞ when squared
def test_a_task_that_is_not_finite_does_not_spoil_the_statistics(factor):
    meta = trained(ARUBA(make_net(), 0.1))
    learner, before = meta.clone(), statistics(meta)
    output = learner(torch.ones(1, 3)).sum()
    if not factor:  # refused already in the step
        with pytest.raises(NotFiniteError, match="the gradient of the inner loss"):
            learner.adapt((output - output).square().sqrt())
        return
    learner.adapt(factor * output)
    with untouched(meta.module, meta.tasks, *meta.buffers()):
        with pytest.raises(ValueError, match="expected finite weights and squared"):
            meta.collect(learner)
    assert all(map(torch.equal, statistics(meta), before))
    assert trained(meta).tasks == 6


def test_complex_weights_and_priors_out_of_range_are_refused():
    with pytest.raises(TypeError, match="real parameters, got weight of torch.complex"):
        ARUBA(nn.Linear(2, 1, dtype=torch.complex64), 0.1)
    for lr, zeta in ((1e-30, 0.1), (0.1, 1e-25), (0.1, 1e25)):
        with pytest.raises(ValueError, match=r"zeta² and \(lr · zeta\)² to be numbers"):
            ARUBA(make_net(), lr, zeta)
    for other in (None, "learner"):
        with pytest.raises(TypeError, match="expected a clone of this ARUBA, got"):
            ARUBA(make_net(), 0.1).collect(other)
    with pytest.raises(ValueError, match="expected lr to be positive and finite"):
        ARUBA(make_net(), 0.1).clone(lr=torch.tensor(0.1))
