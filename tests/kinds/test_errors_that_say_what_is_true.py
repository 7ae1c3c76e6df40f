"""What errors say, and learning rates that are numbers of other kinds."""

import re

import pytest
import torch
from reference import gap, weights
from siblings import X, Y, hold, mlp, mse, plain_variants

from l2l_evograd import EvoGradMetaOptimizer

pytestmark = pytest.mark.usefixtures("float64")
memories = pytest.mark.parametrize("memory", ["auto", "graph", "recompute"])
WROTE = r"(?i)changed in place|modified by an inplace|in-place"
# Loose until the wording is settled.
SECOND_TIME = r"(?i)second time|retain_graph|already.*freed"


def adapted(memory, **settings):
    torch.manual_seed(0)
    meta = EvoGradMetaOptimizer(mlp(), 0.1, memory=memory, **settings)
    learner = meta.clone()
    learner.adapt(mse(learner(X[:6]), Y[:6]))
    return meta, learner


def same_query(meta, learner):
    return mse(learner(X[6:]), Y[6:])


def other_query(meta, learner):
    return learner(X).square().mean()


def weights_alone(meta, learner):
    return sum(p.square().sum() for p in weights(learner).values())


@memories
@pytest.mark.parametrize("again", [same_query, other_query, weights_alone])
def test_a_second_backward_is_called_by_its_name(again, memory):
    meta, learner = adapted(memory)
    same_query(meta, learner).backward()
    try:
        again(meta, learner).backward()
    except RuntimeError as error:
        assert re.search(SECOND_TIME, str(error))
        assert "changed in place" not in str(error)
        assert "inplace" not in str(error)


@memories
@pytest.mark.parametrize("again", [same_query, other_query, weights_alone])
def test_a_second_backward_that_works_gives_the_right_number(again, memory):
    meta, learner = adapted(memory)
    again(meta, learner).backward()
    truth = [p.grad.clone() for p in meta.module.parameters()]
    meta, learner = adapted(memory)
    same_query(meta, learner).backward(retain_graph=True)
    for p in meta.module.parameters():
        p.grad = None
    again(meta, learner).backward()
    assert gap([p.grad for p in meta.module.parameters()], truth) < 1e-9


@memories
def test_weights_that_really_changed_in_place_are_called_so(memory):
    meta, learner = adapted(memory)
    loss = same_query(meta, learner)
    with torch.no_grad():
        for p in weights(learner).values():
            p.mul_(2)
    with pytest.raises(RuntimeError, match=WROTE):
        loss.backward()


@memories
def test_meta_weights_that_an_optimizer_moved(memory):
    meta, learner = adapted(memory)
    loss = same_query(meta, learner)
    loss.backward(retain_graph=True)
    torch.optim.SGD(meta.parameters(), 0.1).step()
    # The graph is that of the weights from before, of which the learner has a copy.
    before = [p.grad.clone() for p in meta.module.parameters()]
    for p in meta.module.parameters():
        p.grad = None
    try:
        loss.backward()
    except RuntimeError as error:
        assert str(error)
    else:
        assert gap([p.grad for p in meta.module.parameters()], before) < 1e-9


def rates():
    yield 1
    yield torch.tensor(0.25)
    yield torch.tensor(0.25, dtype=torch.float32)
    try:
        import numpy
    except ImportError:
        return
    yield numpy.float32(0.25)
    yield numpy.float64(0.25)
    yield numpy.int64(1)


@plain_variants
@pytest.mark.parametrize("where", ["of the learner", "at construction"])
@pytest.mark.parametrize("rate", list(rates()), ids=repr)
def test_a_rate_of_any_kind_of_number(rate, where, variant):
    def program(make):
        plain = make.args[0] is not EvoGradMetaOptimizer
        given = float(rate) if plain else rate
        model = mlp()
        if where == "of the learner":
            learner = make(model).clone()
            learner.lr = given
        else:
            learner = make(model, lr=given).clone()
        learner.adapt(mse(learner(X[:6]), Y[:6]))
        return mse(learner(X[6:]), Y[6:]), list(model.parameters())

    hold(program, variant)


@pytest.mark.parametrize(
    "rate", [0, -1, float("nan"), float("inf"), "fast", None, 1j, object()]
)
def test_a_rate_that_is_none_is_named(rate):
    torch.manual_seed(0)
    learner = EvoGradMetaOptimizer(mlp(), 0.1).clone()
    learner.lr = rate
    with pytest.raises((TypeError, ValueError), match=r"\blr\b|learning rate"):
        learner.adapt(mse(learner(X[:6]), Y[:6]))


@memories
def test_a_loss_of_another_learner_is_not_taken_for_ones_own(memory):
    meta, learner = adapted(memory)
    other = meta.clone()
    with pytest.raises(
        (RuntimeError, ValueError, TypeError), match=r"learner|used|use"
    ):
        learner.adapt(mse(other(X[:6]), Y[:6]))


@memories
def test_a_loss_from_before_a_step_is_not_taken_for_a_present_one(memory):
    _, learner = adapted(memory)
    loss = mse(learner(X[:6]), Y[:6])
    learner.adapt(loss)
    with pytest.raises(
        (RuntimeError, ValueError, TypeError), match=r"learner|used|use"
    ):
        learner.adapt(loss)


@memories
def test_memory_check_and_limit_are_checked(memory):
    model = mlp()
    with pytest.raises(ValueError, match="memory"):
        EvoGradMetaOptimizer(model, 0.1, memory="disk")
    with pytest.raises(ValueError, match="check"):
        EvoGradMetaOptimizer(model, 0.1, memory=memory, check="sometimes")
    with pytest.raises((TypeError, ValueError), match="memory_limit"):
        EvoGradMetaOptimizer(model, 0.1, memory=memory, memory_limit=-1)
