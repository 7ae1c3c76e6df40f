import copy

import pytest
import torch
from tiny import SIDE, silent_console, tiny_dataset
from torch import nn
from torch.nn import functional as F

from l2l_evograd.experiments.crossdomain.data.domains import Dataset
from l2l_evograd.experiments.crossdomain.networks.backbones import make_backbone
from l2l_evograd.experiments.crossdomain.training.pretraining import (
    CosineClassifier,
    Pretraining,
)
from l2l_evograd.experiments.training import train
from l2l_evograd.seeds import derive_seed, seeded

CPU = torch.device("cpu")


def encoder(name="cnn4", size=SIDE):
    with seeded(1, CPU):
        return make_backbone(name, size)


def trained(module, tmp_path):
    train(
        module,
        name="pre",
        out=tmp_path,
        device=CPU,
        console=silent_console(),
    )
    return module


def test_without_further_words_it_is_a_linear_classifier_of_flattened_maps(tmp_path):
    dataset = tiny_dataset("pre")
    start = encoder()
    module = Pretraining(copy.deepcopy(start), dataset, 1e-2, seed=0, batch_size=12)
    batches = [module._batch(i)[:2] for i in range(2)]
    trained(module, tmp_path)

    with seeded(derive_seed(0, "linear"), CPU):
        linear = nn.Linear(start.out_channels * start.out_size**2, 4)
    parameters = [*start.parameters(), *linear.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    losses = []
    for images, labels in batches:
        loss = F.cross_entropy(linear(start(images).flatten(1)), labels)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert module.losses == losses
    for name, value in start.state_dict().items():
        assert torch.equal(module.backbone.state_dict()[name], value), name
    assert torch.equal(module.classifier.weight, linear.weight)


def flat_dataset(side):
    def read(index):
        return torch.full((3, side, side), 40 * index, dtype=torch.uint8)

    return Dataset("flat", read, [0, 1, 2], ["a", "b", "c"])


@pytest.mark.parametrize(
    ("name", "side", "features"),
    [
        ("conv4", 84, 1600),
        ("resnet10", 224, 512),
        ("resnet10", 84, 512),
        ("resnet10", 32, 2048),
    ],
)
def test_maps_are_averaged_where_they_are_large(name, side, features):
    module = Pretraining(encoder(name, side), flat_dataset(side), 1e-3, seed=0)
    assert module.classifier.in_features == features
    images = torch.randn(2, 3, side, side)
    maps = module.backbone(images)
    seen = maps.flatten(1) if maps[0].numel() == features else maps.mean((2, 3))
    assert module.scores(images).shape == (2, 3)
    again = module.classifier(seen)
    assert torch.allclose(module.scores(images), again, rtol=1e-4, atol=1e-5)


def test_cosine_scores_are_angles_to_the_weights():
    torch.manual_seed(0)
    classifier = CosineClassifier(6, 4).double()
    features = torch.randn(5, 6, dtype=torch.float64)
    got = classifier(features)
    for n in range(5):
        for c in range(4):
            f, w = features[n], classifier.weight[c]
            cosine = (f * w).sum() / (f.square().sum() * w.square().sum()).sqrt()
            assert got[n, c].item() == pytest.approx(2 * cosine.item(), rel=1e-10)
    with torch.no_grad():
        classifier.weight *= torch.tensor([[0.1], [3.0], [1.0], [7.0]])
    assert torch.allclose(classifier(5 * features), got, rtol=1e-10)


@pytest.mark.parametrize(("classes", "scale"), [(64, 2.0), (200, 2.0), (201, 10.0)])
def test_many_classes_have_a_larger_scale(classes, scale):
    classifier = CosineClassifier(3, classes)
    with torch.no_grad():
        own = classifier(classifier.weight).diagonal()
    assert torch.allclose(own, torch.full((classes,), scale), rtol=1e-5)


@pytest.mark.parametrize("classifier", ["linear", "cosine"])
def test_the_classes_are_learned_under_both_classifiers(classifier, tmp_path):
    module = Pretraining(
        encoder(),
        tiny_dataset("pre"),
        1e-2,
        seed=0,
        batch_size=12,
        classifier=classifier,
        epochs=10,
    )
    trained(module, tmp_path)
    assert module.losses[-1] < 0.7 * module.losses[0]
    assert module.correct[-1] > 0.7


@pytest.mark.parametrize("classifier", ["linear", "cosine"])
def test_a_classifier_may_have_more_classes_than_there_are(classifier, tmp_path):
    module = Pretraining(
        encoder(), tiny_dataset("pre"), 1e-2, 0, classifier=classifier, classes=20
    )
    assert module.classifier.weight.shape[0] == 20
    before = module.classifier.weight.detach().clone()
    trained(module, tmp_path)
    moved = (module.classifier.weight - before).abs().amax(1)
    # Those without images are learned to be wrong.
    assert (moved > 1e-3).all()


def test_the_encoder_and_the_random_state_are_as_before_at_the_start():
    backbone = encoder("conv6")
    backbone.layers[0].eval()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    modes = [part.training for part in backbone.modules()]
    state = torch.get_rng_state()
    Pretraining(backbone, tiny_dataset("pre"), 1e-2, seed=0, classifier="cosine")
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in backbone.modules()] == modes
    after = backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_unknown_classifiers_and_too_few_classes_are_refused():
    dataset = tiny_dataset("pre")
    with pytest.raises(
        ValueError, match="classifier to be one of 'linear', 'cosine', got 'svm'"
    ):
        Pretraining(encoder(), dataset, 1e-2, seed=0, classifier="svm")
    with pytest.raises(ValueError, match="has 4 classes: .* at least as many, got 3"):
        Pretraining(encoder(), dataset, 1e-2, seed=0, classes=3)
