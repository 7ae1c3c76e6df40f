"""All modes give the hypergradient of autograd, of formulas and of differences."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F
from training_runs import (
    by_autograd,
    distance,
    flat,
    inner,
    lambdas,
    losses,
    outer,
    weights,
)

from l2l_evograd import hypergradient
from l2l_evograd.unroll import (
    forward_mode,
    greedy,
    reversible_sgd,
    run_sgd,
    unrolled_sgd,
)

pytestmark = pytest.mark.usefixtures("float64")

T = 60


def settings(**changed):
    given = {
        "lr": torch.tensor([0.3, 0.5, 0.2, 0.1, 0.3]),
        "momentum": torch.tensor([128.0, 230.0, 200.0]) / 256,
        "weight_decay": torch.tensor([0.01, 0.002]),
        "steps": T,
        "init": {"scale": torch.tensor(0.2)},
    }
    return {**given, **changed}


def steps_of(values, steps=T):
    """The value of every step, by the definition of the windows."""
    values = torch.as_tensor(values).reshape(-1)
    return torch.stack([values[t * len(values) // steps] for t in range(steps)])


@pytest.mark.parametrize(
    ("mode", "tolerance"),
    [
        (unrolled_sgd, 1e-12),
        (forward_mode, 1e-12),
        (partial(reversible_sgd, bits=52), 1e-9),
    ],
    ids=["unrolled", "forward", "reversible"],
)
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    ("windows", "changed"),
    [
        ((1, 1, 1), {}),
        ((5, 3, 2), {}),
        ((7, 11, 13), {}),
        ((T, T, T), {}),
        ((5, 3, 2), {"dampening": True}),
        ((5, 3, 2), {"clip": 0.03}),
        ((T, 1, 7), {"clip": 0.03, "dampening": True}),
    ],
    ids=str,
)
def test_all_modes_equal_autograd_through_the_run(
    mode, tolerance, inside, windows, changed
):
    rng = torch.Generator().manual_seed(6)
    lr, momentum, decay = (torch.rand(n, generator=rng) for n in windows)
    given = {
        "lr": 0.1 + 0.3 * lr,
        "momentum": (100 + 150 * momentum).round() / 256,
        "weight_decay": 0.01 * decay,
    }
    lam, scale = lambdas() if inside else None, torch.tensor(0.2)
    got = mode(
        losses(T),
        outer,
        weights(),
        lam,
        steps=T,
        init={"scale": scale},
        **given,
        **changed,
    )
    each = {name: steps_of(values) for name, values in given.items()}
    truth = by_autograd(T, lam, scale, **each, **changed)
    for name, values in given.items():
        expected = torch.zeros(len(values))
        for t in range(T):
            expected[t * len(values) // T] += truth[name][t]
        assert torch.allclose(got.schedule[name], expected, rtol=tolerance, atol=1e-12)
        mean = got.per_step()[name] * torch.bincount(steps_of(range(len(values))))
        assert torch.allclose(mean, expected, rtol=tolerance, atol=1e-12)
    assert float(got.init["scale"]) == pytest.approx(float(truth["scale"]), rel=1e-9)
    assert (got.gradients is None) == (not inside)
    for name in lam or {}:
        assert torch.allclose(
            got.gradients[name], truth[name], rtol=tolerance, atol=1e-12
        )


def test_the_run_is_that_of_torch():
    params = {name: w.clone().requires_grad_() for name, w in weights().items()}
    lr, beta = torch.tensor([0.3, 0.1, 0.2]), torch.tensor([0.5, 0.875])
    optimizer = torch.optim.SGD(params.values(), lr=1.0)
    values = []
    for t, loss in enumerate(losses(T)):
        (group,) = optimizer.param_groups
        group["lr"] = float(lr[t * 3 // T])
        group["momentum"] = float(beta[t * 2 // T])
        group["weight_decay"] = 0.01
        optimizer.zero_grad()
        loss(params, None).backward()
        values.append(float(loss(params, None).detach()))
        optimizer.step()
    for mode, bound in (
        (unrolled_sgd, 1e-13),
        (forward_mode, 1e-13),
        (greedy, 1e-13),
        (run_sgd, 1e-13),
        (reversible_sgd, 1e-9),
    ):
        got = mode(
            losses(T),
            outer,
            weights(),
            lr=lr,
            momentum=beta,
            weight_decay=0.01,
            steps=T,
        )
        for name, param in params.items():
            assert torch.allclose(got.params[name], param.detach(), rtol=0, atol=bound)
            assert not got.params[name].requires_grad
        assert float(got.outer_loss) == pytest.approx(
            float(outer(params, None).detach())
        )
        assert got.inner_losses.tolist() == pytest.approx(values)
        assert got.inner_loss == got.inner_losses[0]


def test_the_gradients_are_those_of_finite_differences():
    def value(lr, momentum, decay, scale):
        given = {"lr": lr, "momentum": momentum, "weight_decay": decay}
        init = {"scale": scale}
        return unrolled_sgd(losses(20), outer, weights(), steps=20, init=init, **given)

    at = [torch.tensor([0.3, 0.2, 0.4]), torch.tensor([0.8]), torch.tensor(0.01)]
    at.append(torch.tensor(0.3))
    got = flat(value(*at))
    expected = []
    for number, tensor in enumerate(at):
        for place in range(tensor.numel()):
            ends = []
            for sign in (1, -1):
                moved = [t.clone() for t in at]
                moved[number].view(-1)[place] += sign * 1e-6
                ends.append(float(value(*moved).outer_loss))
            expected.append((ends[0] - ends[1]) / 2e-6)
    assert torch.allclose(got, torch.tensor(expected), rtol=1e-6, atol=1e-9)


def test_groups_have_values_of_their_own():
    groups = [["a", "b"], "c"]
    values = torch.tensor([[0.3, 0.1], [0.2, 0.4], [0.1, 0.3]])
    changed = {
        "lr": values,
        "momentum": torch.tensor([[0.5, 0.875]]),
        "weight_decay": 0.01 * values[:2],
        "init": {"scale": torch.tensor([0.1, -0.2])},
        "groups": groups,
    }
    results = [
        mode(losses(T), outer, weights(), lambdas(), **settings(**changed))
        for mode in (unrolled_sgd, forward_mode, reversible_sgd)
    ]
    assert results[0].schedule["lr"].shape == (3, 2)
    assert distance(results[1], results[0]) < 1e-12
    assert distance(results[2], results[0]) < 1e-9
    # A group of all weights, the other groups alike: the sums are those of one group.
    alike = settings(lr=values[:, :1].expand(3, 2), groups=groups)
    one = settings(lr=values[:, 0])
    split = unrolled_sgd(losses(T), outer, weights(), **alike).schedule["lr"]
    whole = unrolled_sgd(losses(T), outer, weights(), **one).schedule["lr"]
    assert torch.allclose(split.sum(1), whole, rtol=1e-10)


def test_a_window_gets_the_sum_of_its_steps():
    wide = settings()
    narrow = settings(
        **{k: steps_of(wide[k]) for k in ("lr", "momentum", "weight_decay")}
    )
    for mode in (unrolled_sgd, forward_mode):
        few = mode(losses(T), outer, weights(), **wide)
        many = mode(losses(T), outer, weights(), **narrow)
        for name, sums in few.schedule.items():
            places = [t * len(sums) // T for t in range(T)]
            added = torch.zeros_like(sums).index_add_(
                0, torch.tensor(places), many.schedule[name]
            )
            assert torch.allclose(added, sums, rtol=1e-10)


def test_without_momentum():
    given = settings(momentum=0.0, weight_decay=0.0)
    truth = unrolled_sgd(losses(T), outer, weights(), lambdas(), **given)
    got = forward_mode(losses(T), outer, weights(), lambdas(), **given)
    assert distance(got, truth) < 1e-12
    # The derivative with respect to a momentum of 0 is not 0.
    zero = settings(momentum=torch.zeros(3))
    truth = unrolled_sgd(losses(T), outer, weights(), **zero)
    got = forward_mode(losses(T), outer, weights(), **zero)
    assert truth.schedule["momentum"].abs().min() > 0
    assert distance(got, truth) < 1e-12


def test_one_step_is_the_same_in_all_modes_and_in_hypergradient():
    lam = lambdas()
    lam["example"] = lam["example"][:8]

    def first(params, lam):
        batch = torch.arange(8)
        return inner(params, lam, batch)

    given = settings(steps=1, lr=torch.tensor([0.3]), momentum=torch.tensor(0.5))
    given["weight_decay"] = torch.tensor([0.01])
    for changed in ({}, {"dampening": True}, {"clip": 0.03, "dampening": True}):
        truth = unrolled_sgd(first, outer, weights(), lam, **given, **changed)
        for mode in (forward_mode, greedy, reversible_sgd):
            got = mode(first, outer, weights(), lam, **given, **changed)
            assert distance(got, truth) < 1e-10
    other = hypergradient(first, outer, weights(), lam, lr=0.3, estimator="exact")
    for mode in (unrolled_sgd, forward_mode, greedy, reversible_sgd):
        got = mode(first, outer, weights(), lam, lr=0.3, momentum=0.5, steps=1)
        for name, value in other.gradients.items():
            assert torch.allclose(got.gradients[name], value, rtol=1e-9, atol=1e-12)
        assert got.schedule == {} and got.init == {}


def test_single_precision():
    def in_float(tree):
        return {name: tensor.float() for name, tensor in tree.items()}

    x = torch.randn(30, 4)
    y = torch.randint(3, (30,))

    def loss(params, lam):
        hidden = torch.tanh(x.to(params["a"]) @ params["a"].T + params["b"])
        return F.cross_entropy(hidden @ params["c"].T, y)

    given = {"momentum": 230 / 256, "steps": 100}
    truth = unrolled_sgd(loss, loss, weights(), lr=torch.full((4,), 0.1), **given)
    for mode in (unrolled_sgd, forward_mode, reversible_sgd):
        rate = torch.full((4,), 0.1, dtype=torch.float32)
        got = mode(loss, loss, in_float(weights()), lr=rate, **given)
        assert got.schedule["lr"].dtype == torch.float32
        assert got.params["a"].dtype == torch.float32
        assert distance(got, truth) < 1e-4


@pytest.mark.parametrize("clip", [None, 0.03])
@pytest.mark.parametrize("dampening", [False, True])
def test_the_run_alone_ends_where_the_differentiated_run_ends(clip, dampening):
    given = settings(clip=clip, dampening=dampening)
    for lam in (None, lambdas()):
        truth = unrolled_sgd(losses(T), outer, weights(), lam, **given)
        got = run_sgd(losses(T), outer, weights(), lam, **given)
        for name, value in truth.params.items():
            assert torch.allclose(got.params[name], value, rtol=1e-12)
            assert not got.params[name].requires_grad
        assert torch.allclose(got.inner_losses, truth.inner_losses, rtol=1e-12)
        assert float(got.outer_loss) == pytest.approx(float(truth.outer_loss))
        assert not hasattr(got, "gradients")
    # Nothing need be learned.
    fixed = {"lr": 0.3, "momentum": 0.5, "steps": 5}
    assert run_sgd(losses(5), outer, weights(), **fixed).inner_losses.shape == (5,)


def test_clipping_changes_the_run_and_the_gradient():
    free, clipped = (
        unrolled_sgd(losses(T), outer, weights(), **settings(clip=clip))
        for clip in (None, 0.03)
    )
    assert distance(clipped, free) > 0.1


def test_greedy_with_dampening_and_clipping_by_its_definition():
    lam, scale = lambdas(), torch.tensor(0.2)
    given = {
        "lr": torch.tensor([0.3, 0.5]),
        "momentum": torch.tensor([0.5, 0.75]),
        "weight_decay": torch.tensor([0.02]),
    }
    steps = 6
    got = greedy(
        losses(steps),
        outer,
        weights(),
        lam,
        steps=steps,
        init={"scale": scale},
        clip=0.03,
        dampening=True,
        **given,
    )
    leaves = {k: steps_of(v, steps).requires_grad_() for k, v in given.items()}
    inside = {k: v.clone().requires_grad_() for k, v in lam.items()}
    s = scale.clone().requires_grad_()
    params = {k: w * s.exp() for k, w in weights().items()}
    velocity = {k: torch.zeros_like(w) for k, w in params.items()}
    wanted = [*leaves.values(), *inside.values(), s]
    total = [torch.zeros_like(t) for t in wanted]
    for t, loss in enumerate(losses(steps)):
        a, b, x = (leaves[k][t] for k in given)
        slopes = torch.autograd.grad(
            loss(params, inside), list(params.values()), create_graph=True
        )
        after = {}
        for (k, w), g in zip(params.items(), slopes, strict=True):
            velocity[k] = b * velocity[k] + (1 - b) * (g.clamp(-0.03, 0.03) + x * w)
            after[k] = w - a * velocity[k]
        found = torch.autograd.grad(outer(after, inside), wanted, allow_unused=True)
        for part, now in zip(total, found, strict=True):
            if now is not None:
                part += now
        params = {k: w.detach().requires_grad_() for k, w in after.items()}
        velocity = {k: v.detach() for k, v in velocity.items()}
    names = [*leaves, *inside, "scale"]
    truth = dict(zip(names, total, strict=True))
    for k, values in given.items():
        sums = torch.zeros_like(values)
        for t in range(steps):
            sums[t * len(values) // steps] += truth[k][t]
        assert torch.allclose(got.schedule[k], sums, rtol=1e-10)
    for k in lam:
        assert torch.allclose(got.gradients[k], truth[k], rtol=1e-10, atol=1e-14)
    assert float(got.init["scale"]) == pytest.approx(float(truth["scale"]), rel=1e-10)
