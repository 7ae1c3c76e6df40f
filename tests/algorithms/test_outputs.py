"""What a learner returns behaves as any tensor, recorded or not."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from by_hand import ByHand, largest_gap, meta_gradients
from scripts import problem, query
from torch import nn
from torch.nn import functional as F

from l2l_evograd import EvoGradMetaOptimizer
from l2l_evograd.replay.tensor import TapedTensor, plain

pytestmark = pytest.mark.usefixtures("float64")


# Without hyperparameters outputs are recorded only where steps are computed again.
recorded_or_not = pytest.mark.parametrize("memory", ["graph", "recompute"])


def learner_of(model, memory="recompute"):
    return EvoGradMetaOptimizer(model, lr=0.1, memory=memory).clone()


def test_outputs_are_ordinary_tensors_where_nothing_is_computed_again():
    x, lam = torch.randn(2, 4), torch.ones((), requires_grad=True)
    model = nn.Linear(4, 3)
    for settings, recorded in [
        ({}, False),
        ({"memory": "recompute"}, True),
        ({"memory": "recompute", "first_order": True}, False),
        ({"hyperparameters": lam}, True),
        ({"hyperparameters": lam, "estimator": "exact", "first_order": False}, False),
        ({"update": "evolution"}, True),
    ]:
        learner = EvoGradMetaOptimizer(model, 0.1, **settings).clone()
        out = learner(x)
        kind = TapedTensor if recorded else torch.Tensor
        assert type(out) is kind, settings
        assert all(type(p) is kind for p in learner.parameters())


@recorded_or_not
def test_outputs_can_be_printed_saved_pickled_and_copied(memory):
    learner = learner_of(nn.Linear(4, 3), memory)
    out = learner(torch.randn(2, 4))
    assert "grad_fn" in repr(out) and f"{out.mean():.3f}" and str(out.detach())
    values = out.detach()
    file = io.BytesIO()
    torch.save(values, file)
    file.seek(0)
    for again in (
        torch.load(file, weights_only=True),
        pickle.loads(pickle.dumps(values)),
        copy.deepcopy(values),
        values.clone(),
        torch.tensor(values.tolist()),
        torch.from_numpy(values.numpy()),
    ):
        assert torch.equal(plain(again), plain(values))
    assert float(values.sum()) == out.sum().item()
    assert np.allclose(np.asarray(values), values.cpu().numpy())
    assert bool((values == values).all()) and len(out) == 2
    assert out.shape == (2, 3) and out.device.type == "cpu" and out.requires_grad
    assert hash(out) == hash(out) and isinstance(out, torch.Tensor)


@recorded_or_not
def test_an_output_with_a_graph_cannot_be_copied_deeply_as_any_other(memory):
    out = learner_of(nn.Linear(4, 3), memory)(torch.randn(2, 4))
    with pytest.raises(RuntimeError, match="deepcopy protocol"):
        copy.deepcopy(out)


@recorded_or_not
def test_saved_outputs_are_ordinary_tensors(memory):
    values = learner_of(nn.Linear(4, 3), memory)(torch.randn(2, 4)).detach()
    file = io.BytesIO()
    torch.save({"values": values}, file)
    file.seek(0)
    assert type(torch.load(file, weights_only=True)["values"]) is torch.Tensor
    assert type(pickle.loads(pickle.dumps(values))) is torch.Tensor


@recorded_or_not
def test_evaluation_in_inference_mode_gives_ordinary_values(memory):
    d = problem()
    learner = learner_of(d.model, memory)
    learner.adapt(F.cross_entropy(learner(d.x), d.y))
    learner.eval()
    with torch.inference_mode():
        out = learner(d.xq)
        accuracy = (out.argmax(1) == d.yq).double().mean()
    with torch.no_grad():
        assert torch.equal(plain(learner(d.xq)), out)
    assert 0 <= accuracy <= 1 and out.is_inference()
    # and adapting goes on afterwards, also with values from that block
    learner.adapt((learner(d.x) - out.clone()).square().mean())
    query(learner, d).backward()
    assert all(torch.isfinite(p.grad).all() for p in d.model.parameters())


@recorded_or_not
def test_an_inference_tensor_in_the_loss_is_a_constant(memory):
    model, x = nn.Linear(4, 3), torch.randn(6, 4)
    with torch.inference_mode():
        target = torch.randn(6, 3)

    def run(meta):
        learner = meta.clone()
        learner.adapt((learner(x) - target).square().mean())
        return learner(x).square().mean()

    params = list(model.parameters())
    meta = EvoGradMetaOptimizer(model, 0.1, memory=memory)
    _, found = meta_gradients(meta, run, params)
    _, expected = meta_gradients(ByHand(model, 0.1), run, params)
    assert largest_gap(found, expected) < 1e-10


@pytest.mark.parametrize("changed", ["input", "target", "weights"])
def test_what_the_loss_used_must_not_change_before_backward(changed):
    model, x, y = nn.Linear(4, 3), torch.randn(6, 4), torch.randn(6, 3)
    factor = torch.ones(6, 1)
    learner = learner_of(model)
    learner.adapt((factor * (learner(x) - y)).square().mean())
    loss = learner(torch.ones(2, 4)).square().mean()
    {"input": x, "target": y, "weights": factor}[changed].mul_(2)
    with pytest.raises(RuntimeError, match="changed in place after the loss.*clone it"):
        loss.backward()


@pytest.mark.parametrize("changed", ["input", "weights"])
def test_what_a_kept_graph_needs_must_not_change_either(changed):
    model, x, y = nn.Linear(4, 3), torch.randn(6, 4), torch.randn(6, 3)
    factor = torch.ones(6, 1)
    learner = learner_of(model, "graph")
    learner.adapt((factor * (learner(x) - y)).square().mean())
    loss = learner(torch.ones(2, 4)).square().mean()
    {"input": x, "weights": factor}[changed].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_an_outside_tensor_with_a_graph_must_not_change_before_the_step():
    model, x, lam = (
        nn.Linear(4, 3),
        torch.randn(6, 4),
        torch.ones(3, requires_grad=True),
    )
    learner = learner_of(model)
    shift = lam * 2
    loss = (learner(x) + shift).square().mean()
    shift.mul_(3)
    with pytest.raises(RuntimeError, match="changed in place after the loss.*clone it"):
        learner.adapt(loss)


def test_a_hyperparameter_must_not_change_before_backward():
    model, x, lam = (
        nn.Linear(4, 3),
        torch.randn(6, 4),
        torch.ones((), requires_grad=True),
    )
    learner = EvoGradMetaOptimizer(model, 0.1, hyperparameters=lam).clone()
    learner.adapt(lam * learner(x).square().mean())
    loss = learner(x).square().mean()
    with torch.no_grad():
        lam.mul_(2)
    with pytest.raises(
        RuntimeError, match="hyperparameters.*changed in place before backward"
    ):
        loss.backward()


@recorded_or_not
def test_the_original_weights_may_change_before_backward(memory):
    # A clone has a copy of the weights, as learn2learn's.
    model, x = nn.Linear(4, 3), torch.randn(6, 4)
    learner = learner_of(model, memory)
    learner.adapt(learner(x).square().mean())
    loss = learner(x).square().mean()
    with torch.no_grad():
        model.weight.mul_(2)
    loss.backward()
    assert torch.isfinite(model.weight.grad).all()


@recorded_or_not
def test_what_was_computed_in_place_after_the_loss_does_not_matter(memory):
    model, x = nn.Linear(4, 3), torch.randn(6, 4)
    learner = learner_of(model, memory)
    out = learner(x)
    loss = (out * 3).mean()
    kept = loss.detach().clone()
    total = torch.zeros(())
    total += loss
    learner.adapt(loss)
    total += 5
    assert torch.equal(plain(loss.detach()), plain(kept))
    learner(x).sum().backward()


@recorded_or_not
def test_a_loss_written_to_after_the_step_is_no_longer_that_loss(memory):
    model, x = nn.Linear(4, 3), torch.randn(6, 4)
    gradients = []
    for log in (False, True):
        learner = learner_of(model, memory)
        loss = learner(x).square().mean()
        learner.adapt(loss)
        if log:
            with torch.no_grad():
                loss /= 100
        (grad,) = torch.autograd.grad(learner(x).square().mean(), model.weight)
        gradients.append(grad)
    assert torch.equal(*gradients)


@recorded_or_not
def test_a_backward_of_an_output_fills_the_gradients_without_any_step(memory):
    model, x = nn.Linear(4, 3), torch.randn(6, 4)
    learner_of(model, memory)(x).square().mean().backward()
    expected = torch.autograd.grad(model(x).square().mean(), list(model.parameters()))
    assert largest_gap([p.grad for p in model.parameters()], expected) < 1e-12


@recorded_or_not
def test_gradients_are_ordinary_tensors(memory):
    model, x = nn.Linear(4, 3), torch.randn(6, 4)
    learner = learner_of(model, memory)
    learner.adapt(learner(x).square().mean())
    learner(x).square().mean().backward()
    assert all(type(p.grad) is torch.Tensor for p in model.parameters())
