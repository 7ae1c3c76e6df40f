"""Losses written in all the ways of scripts, and the gradients of MAML for each."""

from functools import partial

import learn2learn
import pytest
import torch
from by_hand import ByHand, largest_gap, meta_gradients
from scripts import problem
from scripts_reading import READING
from scripts_stepping import STEPPING
from scripts_writing import WRITING
from torch.nn import functional as F

from l2l_evograd import EvoGradMetaOptimizer, Exact, Guided

pytestmark = pytest.mark.usefixtures("float64")

CASES = {**READING, **STEPPING, **WRITING}
# Their loss writes in place to a tensor from outside that requires grad.
WRITTEN_OUTSIDE = {"an_outside_tensor_written_to", "features_of_a_body_written_to"}
# What a hook does with a gradient is not on the record.
NOT_REPEATED = {*WRITTEN_OUTSIDE, "retained_gradients_and_tensor_hooks"}


def run(algorithm, name, d):
    d.sibling = algorithm.clone
    return CASES[name](algorithm.clone(), d)


ORDERS = {
    "exact": {},
    "first order": {"first_order": True},
    "computed again": {"memory": "recompute"},
    "computed again where it can be": {"memory_limit": 0},
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", CASES)
def test_a_loss_computed_in_any_way_gives_the_gradients_of_maml(name, order):
    d = problem()
    settings = ORDERS[order]
    meta = EvoGradMetaOptimizer(d.model, lr=0.1, check="always", **settings)
    if name in NOT_REPEATED and order == "computed again":
        with pytest.raises(TypeError, match="pass a callable"):
            run(meta, name, d)
        return
    found, expected = [
        meta_gradients(algorithm, lambda a: run(a, name, d), d.tensors)
        for algorithm in (meta, ByHand(d.model, 0.1, settings.get("first_order")))
    ]
    assert abs(found[0] - expected[0]) < 1e-12
    assert largest_gap(found[1], expected[1]) < 1e-10
    assert max(g.abs().max() for g in found[1]) > 1e-4


def test_learn2learn_itself_gives_the_same_in_every_case():
    gaps = {}
    for name in CASES.keys() - {"a_callable"}:
        d = problem()
        maml = learn2learn.algorithms.MAML(d.model, lr=0.1, allow_unused=True)
        meta = EvoGradMetaOptimizer(d.model, lr=0.1)
        # learn2learn's clones share their buffers with the original.
        buffers = [b.clone() for b in d.model.buffers()]
        _, expected = meta_gradients(
            maml, lambda a, n=name, d=d: run(a, n, d), d.tensors
        )
        for buffer, before in zip(d.model.buffers(), buffers, strict=True):
            buffer.copy_(before)
        _, found = meta_gradients(meta, partial(run, name=name, d=d), d.tensors)
        gaps[name] = largest_gap(found, expected)
    assert max(gaps.values()) < 1e-10, gaps


WITH_KINKS = {
    "index_functions_in_place",
    "many_functions",
    "operators_and_methods",
    "masks_of_booleans_and_numpy",
}


@pytest.mark.parametrize("name", CASES)
def test_a_named_hyperparameter_gets_the_same_from_a_difference_as_exactly(name):
    found = []
    for estimator in (Guided(h=1e-4), Exact()):
        d = problem()
        meta = EvoGradMetaOptimizer(
            d.model,
            lr=0.1,
            hyperparameters=[d.lam, d.temperature],
            allow_unused=True,
            estimator=estimator,
        )
        if name in NOT_REPEATED and not estimator.exact:
            with pytest.raises(TypeError, match="pass a callable"):
                run(meta, name, d)
            return
        found.append(meta_gradients(meta, lambda a, d=d: run(a, name, d), d.tensors)[1])
    assert largest_gap(*found) < (0.05 if name in WITH_KINKS else 1e-6)


@pytest.mark.parametrize("name", CASES)
def test_an_exact_hypergradient_computed_again_is_the_one_that_was_kept(name):
    found = []
    for memory in ("recompute", "graph"):
        d = problem()
        meta = EvoGradMetaOptimizer(
            d.model,
            lr=0.1,
            hyperparameters=[d.lam, d.temperature],
            allow_unused=True,
            first_order=False,
            estimator="exact",
            memory=memory,
        )
        if name in NOT_REPEATED and memory == "recompute":
            with pytest.raises(TypeError, match="pass a callable"):
                run(meta, name, d)
            return
        found.append(meta_gradients(meta, lambda a, d=d: run(a, name, d), d.tensors)[1])
    assert largest_gap(*found) < 1e-10


@pytest.mark.parametrize("name", sorted(WRITTEN_OUTSIDE))
@pytest.mark.parametrize("estimator", [Guided(h=1e-4), Exact()])
def test_what_is_written_to_inside_a_callable_is_not_from_outside(name, estimator):
    def inner(learner, d):
        if name == "an_outside_tensor_written_to":
            weights = torch.cos(d.lam)
            weights *= F.cross_entropy(learner(d.x), d.y, reduction="none")
            return weights.mean()
        hidden = d.body(d.x)
        hidden[:, :3] += learner(d.x)
        hidden[0] = d.x2[0]
        return learner(hidden).square().mean() + hidden.square().mean() * d.lam.mean()

    def run(meta, d):
        learner = meta.clone()
        learner.adapt(lambda view: inner(view, d))
        return F.cross_entropy(learner(d.xq), d.yq)

    d = problem()
    settings = {"hyperparameters": d.lam, "estimator": estimator, "first_order": False}
    meta = EvoGradMetaOptimizer(d.model, 0.1, memory="recompute", **settings)
    _, found = meta_gradients(meta, lambda a: run(a, d), d.tensors)
    _, expected = meta_gradients(ByHand(d.model, 0.1), lambda a: run(a, d), d.tensors)
    assert largest_gap(found, expected) < (1e-10 if estimator.exact else 1e-6)
