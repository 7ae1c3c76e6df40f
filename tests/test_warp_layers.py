import copy

import pytest
import torch
from learn2learn.vision.models import CNN4, OmniglotCNN, ResNet12
from torch import nn
from torch.func import jacrev
from torch.nn import functional as F
from torchvision.models import resnet18, resnet50

from l2l_evograd.algorithms.warpgrad import WarpGrad
from l2l_evograd.warp_layers import (
    KINDS,
    WarpLayer2d,
    add_warp_layers,
    warp_layers,
)

ENCODERS = {
    "CNN4": (
        lambda: CNN4(3, hidden_size=4, layers=2, embedding_size=16),
        2,
        (3, 32, 32),
    ),
    "OmniglotCNN": (lambda: OmniglotCNN(3, hidden_size=4), 4, (28, 28)),
    "ResNet-18": (lambda: resnet18(num_classes=3), 8, (3, 32, 32)),
    "ResNet-50": (lambda: resnet50(num_classes=3), 16, (3, 32, 32)),
}


def perturbed(model):
    for layer in warp_layers(model):
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_a_warp_layer_starts_as_the_identity_to_the_last_bit(kind):
    features = torch.randn(2, 4, 5, 5)
    layer = WarpLayer2d(4, kind)
    assert torch.equal(layer(features), features)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += torch.randn_like(parameter)
    assert not torch.allclose(layer(features), features, atol=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_residual_layer_is_not_linear(kind):
    layer = WarpLayer2d(2, kind)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    first, second = (jacrev(layer)(torch.randn(1, 2, 3, 3)) for _ in range(2))
    assert torch.allclose(first, second) is (kind != "residual")


@pytest.mark.parametrize("name", ENCODERS)
def test_every_block_gets_a_layer_and_the_model_computes_the_same(name):
    make, count, shape = ENCODERS[name]
    model = make()
    bare = copy.deepcopy(model)
    assert add_warp_layers(model) is model
    assert len(warp_layers(model)) == count
    images = torch.randn(4, *shape)
    assert torch.equal(model(images), bare(images))
    outside = {id(p) for layer in warp_layers(model) for p in layer.parameters()}
    assert [p.shape for p in model.parameters() if id(p) not in outside] == [
        p.shape for p in bare.parameters()
    ]


def test_the_first_adaptation_is_that_of_the_model_without_the_layers():
    model = CNN4(3, hidden_size=4, layers=2, embedding_size=16)
    warped = add_warp_layers(copy.deepcopy(model))
    images, labels = torch.randn(6, 3, 32, 32), torch.randint(3, (6,))
    plain, learner = WarpGrad(model, 0.1, "classifier").clone(), None
    # The classifier stands for a warp layer, so that both adapt the same weights.
    named = ["classifier", *(f"features.{i}.1" for i in range(2))]
    learner = WarpGrad(warped, 0.1, named).clone()
    for one in (plain, learner):
        for _ in range(3):
            one.adapt(F.cross_entropy(one(images), labels))
    assert torch.equal(plain(images), learner(images))


@pytest.mark.parametrize("name", ["CNN4", "OmniglotCNN", "ResNet-18"])
@pytest.mark.parametrize("kind", KINDS)
def test_all_layers_of_an_encoder_get_a_gradient(name, kind):
    make, count, shape = ENCODERS[name]
    model = perturbed(add_warp_layers(make(), kind))
    meta = WarpGrad(model, 0.01)
    images, labels = torch.randn(6, *shape), torch.randint(3, (6,))
    learner = meta.clone()
    learner.adapt(F.cross_entropy(learner(images), labels))
    F.cross_entropy(learner(images), labels).backward()
    assert len(meta.warp_parameters()) >= count
    assert all(p.grad is not None for p in meta.warp_parameters())
    learned = {id(p) for p in meta.warp_parameters()}
    assert all(p.grad is None for p in model.parameters() if id(p) not in learned)


def test_layers_take_dtype_and_mode_of_their_block():
    model = add_warp_layers(CNN4(3, hidden_size=4, layers=2).double().eval(), "conv1x1")
    for layer in warp_layers(model):
        assert not layer.training
        assert {p.dtype for p in layer.parameters()} == {torch.float64}


def test_bad_input_is_refused():
    with pytest.raises(
        ValueError, match="no place for warp layers in ResNet12: .*warp="
    ):
        add_warp_layers(ResNet12(3))
    with pytest.raises(ValueError, match="without warp layers, got one that has some"):
        add_warp_layers(add_warp_layers(CNN4(3)))
    model = CNN4(3)
    with pytest.raises(ValueError, match="kind to be one of 'scale', 'conv1x1'"):
        add_warp_layers(model, "conv5x5")
    assert not len(warp_layers(model))
    with pytest.raises(ValueError, match="num_features"):
        WarpLayer2d(0)
    with pytest.raises(ValueError, match="kind to be one of"):
        WarpLayer2d(3, "tanh")
