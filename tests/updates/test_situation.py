"""What an update is given: derivatives, roles of inputs, and the move itself."""

import pytest
import torch
from recorded import variables

from l2l_evograd.replay.inner_loss import InnerLoss
from l2l_evograd.replay.tensor import Recording
from l2l_evograd.updates.situation import Situation, roles

pytestmark = pytest.mark.usefixtures("float64")


def situation(value, params, **settings):
    names = [f"w{i}" for i in range(len(params))]
    return Situation(value=value, params=params, names=lambda: names, **settings)


def test_derivatives_come_in_the_order_asked_for():
    a, b, lam, other = variables((2,), (2,), (2,), (2,))
    now = situation((a * lam + other).sum(), [a, b], extras=[other])
    found = now.differentiate([lam])
    assert torch.equal(found[0], lam) and found[1] is None
    assert torch.equal(found[2], a) and torch.equal(found[3], torch.ones(2))
    assert torch.equal(now.extras_of(found)[0], torch.ones(2))


def test_the_graph_is_kept_where_it_is_asked_for():
    (a,) = variables((2,))
    value = a.square().sum()
    kept = situation(value, [a], retain_graph=True)
    kept.differentiate()
    kept.differentiate()
    situation(value, [a]).differentiate()
    with pytest.raises(RuntimeError, match="earlier step has freed"):
        kept.differentiate()


def test_weights_move_against_their_gradient_or_stay():
    a, b = variables((2,), (2,))
    slope = torch.ones(2)
    for lr in (0.5, [torch.tensor(0.5), torch.tensor(0.1)]):
        now = situation(a.sum(), [a, b], lr=lr)
        result = now.moved([slope, None], [slope, None], [True], [])
        assert torch.equal(result.params[0], a - 0.5) and result.params[1] is b
        assert result.gradients[1] is None and result.reached == [True]
        (grad,) = torch.autograd.grad(result.params[0].sum(), a)
        assert torch.equal(grad, torch.ones(2))


def test_many_unused_weights_are_named_in_part():
    params = variables(*[(1,)] * 8)
    now = situation(params[0].sum(), params)
    with pytest.raises(ValueError, match=r"7 of the 8 .*: w1, .*, w5, \.\.\.\. F"):
        now.filled(now.differentiate())


@pytest.mark.parametrize("first_order", [False, True])
def test_inputs_computed_from_hyperparameters_are_governed_as_they_are(first_order):
    w, lam, unused, body = variables((2,), (2,), (2,), (2,))
    weights, features = lam.exp(), body * 2
    with Recording():
        value = (w * weights * features * lam).sum()
    loss = InnerLoss(value, [w], hold=True)
    wanted, reached = roles(loss, [lam, unused], first_order)
    governed = [loss.inputs[p] for p in wanted.hyperparameters]
    assert {id(t) for t in governed} == {id(weights), id(lam)}
    others = [loss.inputs[p] for p in wanted.others]
    assert [id(t) for t in others] == ([] if first_order else [id(features)])
    assert reached == [True, False]
    assert wanted.curvature is not first_order
