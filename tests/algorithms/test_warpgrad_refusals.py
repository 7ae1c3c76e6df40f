"""What gets an error from WarpGrad, and what it says."""

import copy

import pytest
import torch
from learn2learn.vision.models import CNN4
from torch import nn
from torch.nn import functional as F
from warped import WARPS, Warped, batches

from l2l_evograd.algorithms.warpgrad import WarpGrad
from l2l_evograd.warp_layers import add_warp_layers, warp_layers


def loss_of(learner):
    (x, y), _ = batches(1)[0]
    return F.cross_entropy(learner(x), y)


def test_a_model_without_warp_layers_is_refused():
    with pytest.raises(
        ValueError, match="with warp layers, got none; call add_warp_lay"
    ):
        WarpGrad(Warped(), 0.1)
    with pytest.raises(ValueError, match="with warp layers, got none"):
        WarpGrad(Warped(), 0.1, warp=nn.Tanh())
    with pytest.raises(ValueError, match="with warp layers, got none"):
        WarpGrad(Warped(), 0.1, warp=[])


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="name of a parameter or submodule .* 'warps'"):
        WarpGrad(Warped(), 0.1, warp="warps")
    with pytest.raises(
        ValueError, match="init to be one of 'maml', 'fomaml', 'reptile"
    ):
        WarpGrad(Warped(), 0.1, warp=WARPS, init="mamla")
    with pytest.raises(TypeError, match="model to be a torch.nn.Module, got int"):
        WarpGrad(3, 0.1)
    with pytest.raises(ValueError, match="estimator to be one of"):
        WarpGrad(Warped(), 0.1, warp=WARPS, estimator="magic")
    with pytest.raises(TypeError, match="tensors, modules or names, got int"):
        WarpGrad(Warped(), 0.1, warp=3)


def test_a_model_with_nothing_to_adapt_is_refused():
    model = Warped()
    with pytest.raises(ValueError, match="no trainable parameters to adapt"):
        WarpGrad(model, 0.1, warp=model)


def test_frozen_warp_layers_are_refused():
    model = Warped()
    model.warp1.requires_grad_(False)
    with pytest.raises(ValueError, match="that require grad, got one of shape"):
        WarpGrad(model, 0.1, warp=WARPS)


def test_a_warp_layer_that_shares_a_parameter_with_an_adapted_layer_is_refused():
    model = Warped()
    model.second.weight = model.warp1[0].weight
    for warp in (WARPS, [model.warp1, model.warp2], ["warp1.0.weight", "warp1.0.bias"]):
        with pytest.raises(
            ValueError, match="shares second.weight with a layer that is"
        ):
            WarpGrad(model, 0.1, warp=warp)
    WarpGrad(model, 0.1, warp=[*WARPS, "second"])
    WarpGrad(model, 0.1, warp=list(model.warp1.parameters()))


def test_a_part_of_a_warp_layer_is_refused():
    model = add_warp_layers(CNN4(3, hidden_size=4, layers=2))
    layer = warp_layers(model)[0]
    with pytest.raises(
        ValueError, match="features.0.1.warp.bias belongs to a warp layer"
    ):
        WarpGrad(model, 0.1, warp=layer.warp.weight)
    with pytest.raises(ValueError, match="features.1.1.warp.weight belongs to a warp"):
        WarpGrad(model, 0.1, warp=layer)


def test_outputs_that_do_not_reach_the_warp_layers_are_refused():
    class Around(Warped):
        def forward(self, x):
            return self.head(self.second(self.warp1(self.first(x))))

    for first_order in (False, True):
        learner = WarpGrad(Around(), 0.1, warp=WARPS, first_order=first_order).clone()
        text = r"does not depend on 2 of the 4 hyperparameters: warp2.0.weight \(5, 5\)"
        with pytest.raises(ValueError, match=text):
            learner.adapt(loss_of(learner))
        model = Around()
        learner = WarpGrad(
            model, 0.1, warp=WARPS, first_order=first_order, allow_unused=True
        ).clone()
        learner.adapt(loss_of(learner))
        loss_of(learner).backward()
        assert model.warp1[0].weight.grad is not None
        assert model.warp2[0].weight.grad is None


def test_the_original_cannot_adapt():
    meta = WarpGrad(Warped(), 0.1, warp=WARPS, init="reptile")
    with pytest.raises(TypeError, match="expected a learner, got the original"):
        meta.adapt(loss_of(meta))
    with pytest.raises(TypeError, match="init_loss.. belongs to a clone"):
        meta.init_loss()


def test_a_loss_for_the_initial_weights_needs_a_method_a_step_and_the_loss():
    learner = WarpGrad(Warped(), 0.1, warp=WARPS).clone()
    learner.adapt(loss_of(learner))
    with pytest.raises(ValueError, match="initial weights are not learned: .* reptile"):
        learner.init_loss()
    for init, needs in (
        ("maml", "the query loss"),
        ("fomaml", "the query loss"),
        ("leap", "the inner loss"),
    ):
        learner = WarpGrad(Warped(), 0.1, warp=WARPS, init=init).clone()
        with pytest.raises(
            ValueError, match="at least one inner step before init_loss"
        ):
            learner.init_loss(loss_of(learner))
        learner.adapt(loss_of(learner))
        with pytest.raises(ValueError, match=f"expected {needs} at the learner's last"):
            learner.init_loss()
        with pytest.raises(ValueError, match="finite"):
            learner.init_loss(loss_of(learner) * float("nan"))
    with pytest.raises(TypeError, match="belongs to a clone"):
        learner.clone().init_loss(loss_of(learner))
    with pytest.raises(TypeError, match="belongs to a clone"):
        copy.deepcopy(learner).init_loss(loss_of(learner))


def test_a_query_loss_whose_graph_is_gone_or_that_is_another_is_refused():
    learner = WarpGrad(Warped(), 0.1, warp=WARPS, init="maml").clone()
    learner.adapt(loss_of(learner))
    before = loss_of(learner)
    query = loss_of(learner)
    query.backward()
    with pytest.raises(
        RuntimeError, match="freed by an earlier backward.*init_loss.loss"
    ):
        learner.init_loss(query)
    learner.adapt(loss_of(learner))
    with pytest.raises(ValueError, match="depends on the learner's present weights"):
        learner.init_loss(before)
    with pytest.raises(ValueError, match="depends on the learner's present weights"):
        learner.init_loss(torch.ones((), requires_grad=True) * 2)
