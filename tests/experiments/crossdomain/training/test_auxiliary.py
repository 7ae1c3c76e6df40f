import pytest
import torch
from torch import nn

from l2l_evograd.experiments.crossdomain.networks.backbones import make_backbone
from l2l_evograd.experiments.crossdomain.training.auxiliary import (
    AuxiliaryClassifier,
    auxiliary_weight,
)

pytestmark = pytest.mark.usefixtures("float64")


def encoder():
    torch.manual_seed(0)
    backbone = make_backbone("cnn4", 32, feature_transforms=True)
    backbone(torch.randn(4, 3, 32, 32))  # statistics other than 0 and 1
    return backbone


IMAGES = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
LABELS = torch.tensor([3, 0, 6, 6, 2])


def test_the_loss_is_that_of_three_layers_on_the_averaged_maps_in_evaluation():
    backbone = encoder()
    classifier = AuxiliaryClassifier(64, 7)
    got = classifier.loss(backbone, IMAGES, LABELS)
    backbone.eval()
    state = classifier.state_dict()
    assert len(state) == 6
    total = 0.0
    for image, label in zip(IMAGES, LABELS, strict=True):
        hidden = backbone(image[None])[0].sum((1, 2)) / 4
        for number in (0, 2, 4):
            weight = state[f"layers.{number}.weight"]
            hidden = weight @ hidden + state[f"layers.{number}.bias"]
            if number < 4:
                hidden = torch.where(hidden > 0, hidden, 0.0)
        total -= hidden[label] - hidden.exp().sum().log()
    assert torch.allclose(got, total / 5, rtol=1e-10)


def test_the_hidden_layers_are_as_wide_as_the_features():
    classifier = AuxiliaryClassifier(512, 64)
    shapes = [tuple(p.shape) for p in classifier.parameters() if p.dim() == 2]
    assert shapes == [(512, 512), (512, 512), (64, 512)]


def test_the_encoder_is_left_as_it_was_and_no_random_number_is_drawn():
    backbone = encoder()
    backbone.layers[1].eval()
    modes = [part.training for part in backbone.modules()]
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    state = torch.get_rng_state()
    classifier = AuxiliaryClassifier(64, 7)
    torch.set_rng_state(state)
    classifier.loss(backbone, IMAGES, LABELS)
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in backbone.modules()] == modes
    after = backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_gradients_reach_encoder_and_classifier_but_no_transformation():
    backbone, classifier = encoder(), AuxiliaryClassifier(64, 7)
    classifier.loss(backbone, IMAGES, LABELS).backward()
    for name, parameter in [
        *backbone.named_parameters(),
        *classifier.named_parameters(),
    ]:
        if "theta" in name:
            assert parameter.grad is None
        else:
            assert parameter.grad.abs().max() > 0, name


def test_a_few_steps_learn_the_batch():
    backbone, classifier = encoder(), AuxiliaryClassifier(64, 7)
    colours = torch.randn(7, 3, 1, 1)[LABELS]
    optimizer = torch.optim.Adam(
        [*backbone.parameters(), *classifier.parameters()], 3e-3
    )
    losses = []
    for _ in range(20):
        loss = classifier.loss(backbone, 0.3 * IMAGES + colours, LABELS)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(("label", "range_"), [(7, "0 to 7"), (-1, "-1 to 6")])
def test_labels_of_other_classes_are_refused(label, range_):
    classifier = AuxiliaryClassifier(64, 7)
    labels = torch.tensor([0, label, 6])
    with pytest.raises(ValueError, match=f"labels from 0 to 6, got {range_}"):
        classifier.loss(nn.Identity(), torch.randn(3, 64, 2, 2), labels)


def test_the_weight_falls_as_in_the_benchmark():
    for epoch in range(0, 400, 7):
        expected = 0.9 ** (20 * epoch // 400)
        for iteration in (100 * epoch, 100 * epoch + 99):
            assert auxiliary_weight(iteration, 40_000) == expected
    assert auxiliary_weight(0, 40_000) == 1.0
    assert auxiliary_weight(1_999, 40_000) == 1.0
    assert auxiliary_weight(2_000, 40_000) == 0.9
    assert auxiliary_weight(39_999, 40_000) == 0.9**19


def test_a_short_training_has_the_same_weights_at_the_same_shares_of_it():
    assert [auxiliary_weight(t, 4) for t in range(4)] == [
        1.0,
        0.9**5,
        0.9**10,
        0.9**15,
    ]


@pytest.mark.parametrize("iteration", [-1, 10])
def test_iterations_outside_the_training_have_no_weight(iteration):
    with pytest.raises(ValueError, match=f"iteration from 0 to 9, got {iteration}"):
        auxiliary_weight(iteration, 10)
