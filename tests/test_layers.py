import copy

import pytest
import torch
from learn2learn.vision.models import CNN4, WRN28, ResNet12
from torch import nn
from torchvision.models import resnet18, resnet34, resnet50
from torchvision.models.resnet import BasicBlock, ResNet

from l2l_evograd import EvoGradMetaOptimizer
from l2l_evograd.layers import (
    FeatureWiseTransform2d,
    add_feature_transforms,
    feature_transforms,
    feature_transforms_switched,
)


def resnet10():
    return ResNet(BasicBlock, [1, 1, 1, 1])


def size(model):
    layers = feature_transforms(model)
    return len(layers), sum(p.numel() for p in layers.parameters())


def test_the_layer_computes_its_formula():
    layer = FeatureWiseTransform2d(3).double()
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    torch.manual_seed(7)
    got = layer(x)
    torch.manual_seed(7)
    noise = torch.randn(2, 1, 3, 1, 1, dtype=torch.float64)

    def softplus(theta):
        return torch.log1p(torch.exp(100 * theta)) / 100

    gamma = 1 + noise[0] * softplus(layer.theta_gamma)
    beta = noise[1] * softplus(layer.theta_beta)
    assert torch.allclose(got, gamma * x + beta, rtol=1e-12)
    assert torch.allclose(layer.theta_gamma, torch.full((), 0.3).double())
    assert torch.allclose(layer.theta_beta, torch.full((), 0.5).double())


def test_one_draw_for_each_channel_is_shared_over_batch_and_pixels():
    layer = FeatureWiseTransform2d(3)
    moved = layer(torch.zeros(4, 3, 5, 5))
    assert torch.equal(moved, moved[:1, :, :1, :1].expand(4, 3, 5, 5))
    assert not torch.equal(layer(torch.zeros(4, 3, 5, 5)), moved)


@pytest.mark.parametrize("off", ["eval", "disabled"])
def test_when_off_the_input_itself_comes_back_and_nothing_is_drawn(off):
    layer = FeatureWiseTransform2d(3)
    if off == "eval":
        layer.eval()
    else:
        layer.enabled = False
    x, state = torch.randn(2, 3, 4, 4), torch.get_rng_state()
    assert layer(x) is x
    assert torch.equal(state, torch.get_rng_state())


def test_the_strengths_receive_gradients():
    layer = FeatureWiseTransform2d(3)
    layer(torch.randn(2, 3, 4, 4)).square().sum().backward()
    assert all(bool((p.grad != 0).all()) for p in layer.parameters())


def test_memory_format_and_precision_of_the_input_are_kept():
    layer = FeatureWiseTransform2d(3)
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert layer(x).is_contiguous(memory_format=torch.channels_last)
    assert layer(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(2, 4, 5, 5), (2, 3, 5)])
def test_another_number_of_channels_is_refused(shape):
    with pytest.raises(ValueError, match=r"shape \(N, 3, H, W\), got \(2, "):
        FeatureWiseTransform2d(3)(torch.zeros(shape))


def test_a_layer_without_channels_is_refused():
    with pytest.raises(ValueError, match="num_features of at least 1, got 0"):
        FeatureWiseTransform2d(0)


@pytest.mark.parametrize(
    ("make", "count", "numbers"),
    [(resnet10, 7, 3712), (resnet18, 11, 5632), (resnet34, 19, 9344)],
)
def test_residual_networks_have_the_published_numbers(make, count, numbers):
    assert size(add_feature_transforms(make())) == (count, numbers)


def test_layers_follow_the_second_norm_and_that_of_the_shortcut():
    model = add_feature_transforms(resnet10())
    assert isinstance(model.bn1, nn.BatchNorm2d)
    assert isinstance(model.layer2[0].bn1, nn.BatchNorm2d)
    assert isinstance(model.layer2[0].bn2[1], FeatureWiseTransform2d)
    assert isinstance(model.layer2[0].downsample[1][1], FeatureWiseTransform2d)
    assert len(feature_transforms(add_feature_transforms(resnet50()))) == 16 + 4


def count_norms(model):
    return sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())


@pytest.mark.parametrize("network", [CNN4, ResNet12, WRN28])
def test_networks_of_learn2learn_get_one_after_every_norm(network):
    model = network(5)
    norms = count_norms(model)
    layers, _ = size(add_feature_transforms(model))
    assert layers == norms
    assert model(torch.randn(2, 3, 84, 84)).shape == (2, 5)


def test_when_off_the_network_is_what_it_was_before():
    plain = resnet10().eval()
    changed = add_feature_transforms(copy.deepcopy(plain))
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(plain(x), changed(x))
    with feature_transforms_switched(changed.train(), on=False):
        assert torch.equal(plain.train()(x), changed(x))


def test_layers_take_device_precision_and_mode_of_the_norm():
    model = add_feature_transforms(resnet10().double().eval())
    layer = feature_transforms(model)[0]
    assert layer.theta_gamma.dtype == torch.float64 and not layer.training


def test_adding_twice_or_where_there_is_no_place_is_refused():
    with pytest.raises(ValueError, match="has feature-wise transformation layers alr"):
        add_feature_transforms(add_feature_transforms(resnet10()))
    with pytest.raises(ValueError, match="no place for a .* in Sequential: expected"):
        add_feature_transforms(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)))


def test_switching_touches_one_model_and_is_undone_also_after_an_error():
    model = add_feature_transforms(resnet10())
    other = copy.deepcopy(model)
    learner = EvoGradMetaOptimizer(
        model, 0.1, hyperparameters=feature_transforms(model)
    ).clone()
    feature_transforms(model)[3].enabled = False

    def states(module):
        return [layer.enabled for layer in feature_transforms(module)]

    before = states(model)
    with pytest.raises(KeyError), feature_transforms_switched(model, on=False):
        assert not any(states(model))
        assert all(states(other)) and all(states(learner))
        raise KeyError
    assert states(model) == before
    with feature_transforms_switched(learner, on=False):
        assert not any(states(learner)) and states(model) == before


def test_the_hypergradient_of_the_strengths_is_that_of_the_switched_on_loss():
    # The loss is computed with the layers on, and adapted to and differentiated after
    # they were switched off: replays must still see them on, with the same noise.
    torch.manual_seed(0)
    model = add_feature_transforms(CNN4(3, hidden_size=4, layers=2)).double()
    x, y = torch.randn(6, 3, 84, 84).double(), torch.arange(6) % 3
    grads = []
    for _ in range(2):
        meta = EvoGradMetaOptimizer(
            model, 0.1, hyperparameters=feature_transforms(model), estimator="exact"
        )
        torch.manual_seed(3)
        learner = meta.clone()
        loss = nn.functional.cross_entropy(learner(x), y)
        with feature_transforms_switched(learner, on=False):
            learner.adapt(loss)
            query = nn.functional.cross_entropy(learner(x), y)
        grads.append(torch.autograd.grad(query, meta.hyperparameters))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    assert any(bool((g != 0).any()) for g in grads[0])
