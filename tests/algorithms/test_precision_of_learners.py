"""Single and half precision, and autocast, in and out of its block."""

import pytest
import torch
from by_hand import ByHand, largest_gap, meta_gradients
from torch.nn import functional as F
from zoo import episode, problem

from l2l_evograd import EvoGradMetaOptimizer

AGAIN = pytest.mark.parametrize("memory", ["graph", "recompute"])


@AGAIN
@pytest.mark.parametrize("name", ["batch norm", "LSTM", "transformer", "images"])
def test_single_precision_agrees_to_single_precision(name, memory):
    model, *data = problem(name, torch.float32)
    params = list(model.parameters())
    run = episode(*data, 2)
    meta = EvoGradMetaOptimizer(model, 0.2, memory=memory)
    _, found = meta_gradients(meta, run, params)
    _, expected = meta_gradients(ByHand(model, 0.2), run, params)
    assert {g.dtype for g in found} == {torch.float32}
    assert largest_gap(found, expected) < 1e-5


@AGAIN
@pytest.mark.parametrize("around", ["everything", "forward passes"])
@pytest.mark.parametrize("name", ["batch norm", "dropout", "images"])
def test_autocast_repeats_also_where_backward_is_outside(name, around, memory):
    model, x, y, xq, yq = problem(name, torch.float32)
    params = list(model.parameters())

    def cast():
        return torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False)

    def run(meta):
        learner = meta.clone()
        for _ in range(2):
            with cast():
                out = learner(x)
                loss = F.cross_entropy(out, y)
            assert out.dtype == torch.bfloat16
            if around == "everything":
                with cast():
                    learner.adapt(loss)
            else:
                learner.adapt(loss)
        with cast():
            return F.cross_entropy(learner(xq), yq)

    meta = EvoGradMetaOptimizer(model, 0.2, memory=memory)
    _, found = meta_gradients(meta, run, params)
    _, expected = meta_gradients(ByHand(model, 0.2), run, params)
    assert {g.dtype for g in found} == {torch.float32}
    assert largest_gap(found, expected) < 0.02


@AGAIN
def test_a_model_in_bfloat16_adapts(memory):
    model, *data = problem("layer norm", torch.bfloat16)
    params = list(model.parameters())
    run = episode(*data, 1)
    meta = EvoGradMetaOptimizer(model, 0.2, memory=memory)
    _, found = meta_gradients(meta, run, params)
    _, expected = meta_gradients(ByHand(model, 0.2), run, params)
    assert {g.dtype for g in found} == {torch.bfloat16}
    assert largest_gap(found, expected) < 0.05
