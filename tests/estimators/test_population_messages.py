"""What crosses between processes that share out a population, and what each does."""

import copy
import pickle

import pytest
import torch
from populations import SAMPLES, call_function, numbers
from several_processes import in_processes
from torch import distributed, nn

from l2l_evograd import EvoGrad, EvoGradMetaOptimizer, hypergradient
from l2l_evograd.replay.inner_loss import InnerLoss

pytestmark = pytest.mark.usefixtures("float64")


def messages(update, steps, first_order, rank, group):
    """Return how many numbers each message has between two processes."""
    sizes = []

    def recorded(function):
        def send(tensor, *args, **kwargs):
            sizes.append(tensor.numel())
            return function(tensor, *args, **kwargs)

        return send

    distributed.all_reduce = recorded(distributed.all_reduce)
    distributed.broadcast = recorded(distributed.broadcast)
    estimator = EvoGrad(5, 0.05, 0.5, process_group=group)
    call_function(update, estimator, 5, steps, first_order)
    return torch.tensor(sizes)


SEED, LOSSES, LAMBDA, THETA = 1, 5, SAMPLES, 8


@pytest.mark.parametrize(
    ("case", "sizes"),
    [
        (("gradient", 1, True), [SEED, LAMBDA + LOSSES]),
        (("gradient", 2, False), [SEED, LAMBDA + LOSSES] * 2),
        (("evolution", 1, True), [SEED, LOSSES, LAMBDA]),
        (("evolution", 2, True), [*[SEED, LOSSES] * 2, LAMBDA, LAMBDA]),
        (("evolution", 2, False), [*[SEED, LOSSES] * 2, LAMBDA + THETA, LAMBDA]),
    ],
)
def test_the_seed_the_losses_and_one_sum_cross_and_no_more(tmp_path, case, sizes):
    for found in in_processes(tmp_path, 2, messages, *case):
        assert found.tolist() == sizes


def evaluations(rank, group):
    """Return how often each process evaluates the inner loss for 5 candidates."""
    calls = []
    evaluate = InnerLoss.__call__
    InnerLoss.__call__ = lambda *args: calls.append("again") or evaluate(*args)

    def inner(params, lam):
        calls.append("called")
        return (lam * params["w"]).square().sum()

    w, lam = {"w": numbers(3)}, numbers(3, seed=8)
    estimator = EvoGrad(5, 0.05, 0.5, process_group=group)
    for update in ("gradient", "evolution"):
        hypergradient(
            inner,
            lambda params, lam: params["w"].sum(),
            w,
            lam,
            lr=0.1,
            update=update,
            estimator=estimator,
            generator=torch.Generator().manual_seed(5),
            check="never",
        )
    return torch.tensor([calls.count("called"), calls.count("again")])


def test_each_process_evaluates_its_own_candidates_alone(tmp_path):
    # The candidates, once in each mode; in evolution 5 rows of λ are more than the
    # weights, and the adjoint computes them again.
    counts = [found.tolist() for found in in_processes(tmp_path, 2, evaluations)]
    assert counts == [[2, 3 * 3], [2, 3 * 2]]


def as_a_value(rank, group):
    population = EvoGrad(4, process_group=group)
    assert copy.deepcopy(population).process_group is group
    assert copy.copy(population) == population
    meta = EvoGradMetaOptimizer(nn.Linear(1, 1), 0.1, estimator=population)
    assert copy.deepcopy(meta).estimator.process_group is group
    assert population == EvoGrad(4, process_group=group) != EvoGrad(4)
    assert hash(population) == hash(EvoGrad(4, process_group=group))
    assert repr(population) == repr(EvoGrad(4))
    with pytest.raises(TypeError, match=r"pickle .*ProcessGroup"):
        pickle.dumps(population)


def test_a_population_with_a_group_is_a_value_that_is_not_pickled(tmp_path):
    in_processes(tmp_path, 1, as_a_value)


def test_a_population_without_a_group_is_pickled():
    population = EvoGrad(4, noise="gaussian")
    assert pickle.loads(pickle.dumps(population)) == population


def test_what_is_no_group_is_refused():
    with pytest.raises(TypeError, match=r"process_group.*got str; use torch.distrib"):
        EvoGrad(process_group="gloo")
