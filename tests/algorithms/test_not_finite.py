"""Learners refuse what is not finite, or leave it out and count it."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from l2l_evograd import ARUBA, EvoGradMetaOptimizer, WarpGrad
from l2l_evograd.checks import InputError, NotFiniteError

X, XQ = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % 3


def without_gradient(loss):
    return loss + (loss * 0).sqrt()


def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    return model, torch.zeros(6, requires_grad=True)


def inner(learner, lam):
    losses = F.cross_entropy(learner(X), Y, reduction="none")
    return (torch.sigmoid(lam) * losses).mean()


def outer(learner):
    return F.cross_entropy(learner(XQ), Y)


BAD = {
    "loss": lambda loss, lam, model: loss * math.nan,
    "gradient": lambda loss, lam, model: without_gradient(loss),
    "lambda": lambda loss, lam, model: lam.data.fill_(math.inf) is None or loss,
}
SETTINGS = [
    {"estimator": "guided"},
    {"estimator": "exact"},
    {"estimator": "exact", "first_order": False},
    {"estimator": "evograd"},
    {"update": "evolution"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("bad", BAD)
def test_an_inner_step_that_is_not_finite_does_not_move_the_learner(bad, settings):
    for policy in ("raise", "skip"):
        model, lam = problem()
        meta = EvoGradMetaOptimizer(
            model, 0.1, hyperparameters=lam, nan_policy=policy, **settings
        )
        learner = meta.clone()
        before = list(learner.parameters())
        drawn = meta.generator.get_state()
        if bad == "lambda":
            lam.data.fill_(math.inf)  # sigmoid(λ) is 1
        if bad == "gradient" and "update" in settings:
            continue  # takes no gradient
        value = BAD[bad](inner(learner, lam), lam, model)
        if policy == "raise":
            with pytest.raises(NotFiniteError, match="expected the .* to be finite"):
                learner.adapt(value)
        else:
            learner.adapt(value)
            assert meta.skipped == learner.skipped == 1
        assert [id(p) for p in learner.parameters()] == [id(p) for p in before]
        assert torch.equal(meta.generator.get_state(), drawn)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_hypergradient_that_is_not_finite_does_not_reach_lambda(settings):
    model, lam = problem()
    usual = {"hyperparameters": lam, **settings}
    learner = EvoGradMetaOptimizer(model, 0.1, **usual).clone()
    learner.adapt(inner(learner, lam))
    with pytest.raises(NotFiniteError, match="gradient of the outer loss with respect"):
        without_gradient(outer(learner)).backward()
    assert lam.grad is None
    meta = EvoGradMetaOptimizer(model, 0.1, nan_policy="skip", **usual)
    for change in (without_gradient, lambda loss: loss):
        learner = meta.clone()
        learner.adapt(inner(learner, lam))
        change(outer(learner)).backward()
        assert lam.grad is None or lam.grad.isfinite().all()
    assert meta.skipped == 1
    assert lam.grad is not None
    assert lam.grad.abs().sum() > 0


def test_learned_rates_that_are_not_finite_are_named():
    model, lam = problem()
    rate = torch.tensor(math.nan, requires_grad=True)
    learner = EvoGradMetaOptimizer(model, rate, hyperparameters=lam).clone()
    with pytest.raises(NotFiniteError, match="expected the learning rates to be fin"):
        learner.adapt(inner(learner, lam))


def test_a_rate_out_of_the_range_of_the_weights_is_refused():
    model, lam = problem()
    learner = EvoGradMetaOptimizer(model, 1e300).clone()
    with pytest.raises(InputError, match="expected lr to be in the range of torch.flo"):
        learner.adapt(outer(learner))


def test_all_tasks_at_once_leave_the_step_out_together():
    model, _ = problem()
    pair = torch.stack([X, XQ]), torch.stack([Y, Y])
    bad = pair[0].clone()
    bad[1, 0, 0] = math.nan
    meta = EvoGradMetaOptimizer(model, 0.1)
    with pytest.raises(NotFiniteError, match="the inner loss to be finite, got nan"):
        meta.task_losses(F.cross_entropy, (bad, pair[1]), pair)
    meta = EvoGradMetaOptimizer(model, 0.1, nan_policy="skip")
    losses = meta.task_losses(F.cross_entropy, (bad, pair[1]), pair)
    expected = [F.cross_entropy(model(x), Y) for x in pair[0]]
    assert torch.allclose(losses, torch.stack(expected))
    assert meta.skipped == 1


@pytest.mark.parametrize("init", ["maml", "fomaml", "reptile", "leap"])
def test_warped_steps_and_initial_weights(init):
    model, _ = problem()
    meta = WarpGrad(model, 0.1, warp="2", init=init, nan_policy="skip")
    learner = meta.clone()
    learner.adapt(outer(learner))
    before = list(learner.parameters())
    learner.adapt(without_gradient(outer(learner)))
    assert [id(p) for p in learner.parameters()] == [id(p) for p in before]
    # The graph of the step before is still there.
    outer(learner).backward(retain_graph=True)
    without_gradient(outer(learner)).backward(retain_graph=True)
    assert meta.skipped == 2
    if init not in ("maml", "fomaml"):
        return
    learner.init_loss(without_gradient(outer(learner))).backward()
    assert meta.skipped == 3
    assert not any(p.grad.any() for p in meta.init_parameters())
    learner = WarpGrad(model, 0.1, warp="2", init=init).clone()
    learner.adapt(outer(learner))
    with pytest.raises(NotFiniteError, match="gradient of the (initial|outer)"):
        learner.init_loss(without_gradient(outer(learner)))


def test_statistics_take_no_learner_that_diverged():
    model, _ = problem()
    meta = ARUBA(model, 0.1, nan_policy="skip")
    learner = meta.clone()
    learner.adapt(outer(learner) * 1e25)  # finite, and its square is not
    before = [buffer.clone() for buffer in meta.buffers()]
    meta.collect(learner)
    assert all(map(torch.equal, meta.buffers(), before))
    assert meta.skipped == 1


def test_clones_count_together_and_copies_apart():
    model, lam = problem()
    meta = EvoGradMetaOptimizer(model, 0.1, nan_policy="skip")
    learner = meta.clone()
    learner.adapt(outer(learner) * math.nan)
    twin = copy.deepcopy(meta)
    learner.adapt(outer(learner) * math.nan)
    assert (meta.skipped, twin.skipped) == (2, 1)
    with pytest.raises(InputError, match="nan_policy to be one of 'raise', 'skip'"):
        EvoGradMetaOptimizer(model, 0.1, nan_policy="ignore")
