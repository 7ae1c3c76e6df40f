import pytest
import torch
from tiny import SIDE, tiny_dataset

from l2l_evograd.experiments.crossdomain.data.episodes import EpisodeSampler
from l2l_evograd.experiments.crossdomain.networks.backbones import make_backbone
from l2l_evograd.experiments.crossdomain.networks.heads import (
    FewShotModel,
    few_shot_accuracy,
    make_head,
)
from l2l_evograd.experiments.crossdomain.training.evaluation import (
    embed,
    episode_accuracies,
    evaluating,
    summarise,
)
from l2l_evograd.layers import add_feature_transforms

CPU = torch.device("cpu")
SHAPE = (3, 1, 2)
SEEDS = range(5)


@pytest.mark.parametrize("head", ["protonet", "relationnet"])
def test_features_give_the_accuracies_that_images_give(head: str):
    torch.manual_seed(0)
    backbone = make_backbone("cnn4", SIDE)
    add_feature_transforms(backbone)
    model = FewShotModel(backbone, make_head(head, backbone))
    dataset = tiny_dataset("tiny")
    features = embed(model, dataset, CPU, batch_size=7)
    fast = episode_accuracies(model, EpisodeSampler(features, *SHAPE), SEEDS, CPU)

    model.eval()
    sampler = EpisodeSampler(dataset, *SHAPE)
    scored = [(e, model(e, SHAPE[0])) for e in map(sampler.sample, SEEDS)]
    slow = [few_shot_accuracy(scores, e.query_y) for e, scores in scored]
    assert fast == slow
    assert len(set(fast)) > 1


@pytest.mark.parametrize("workers", [0, 2])
def test_features_are_the_same_whoever_reads_the_images(workers: int):
    torch.manual_seed(0)
    backbone = make_backbone("cnn4", SIDE)
    model = FewShotModel(backbone, make_head("protonet", backbone))
    dataset = tiny_dataset("tiny")  # 24 images: the last batch has three
    features = embed(model, dataset, CPU, batch_size=7, workers=workers)
    with evaluating(model):
        parts = [range(start, min(start + 7, 24)) for start in range(0, 24, 7)]
        images = [torch.stack([dataset[i][0] for i in part]) for part in parts]
        expected = torch.cat([model.embed(batch) for batch in images])
    assert torch.equal(features.features, expected)
    assert [features[i][1] for i in range(24)] == dataset.labels


def test_evaluation_leaves_modes_and_statistics_alone():
    torch.manual_seed(0)
    backbone = make_backbone("cnn4", SIDE)
    model = FewShotModel(backbone, make_head("relationnet", backbone))
    model.head.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    embed(model, tiny_dataset("tiny"), CPU)
    assert model.backbone.training and not model.head.training
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_modes_come_back_after_an_error():
    module = torch.nn.Dropout()
    with pytest.raises(KeyError), evaluating(module):
        assert not module.training and not torch.is_grad_enabled()
        raise KeyError
    assert module.training and torch.is_grad_enabled()


def test_the_interval_is_of_the_mean():
    accuracy = summarise([0.2, 0.4, 0.6, 0.8])
    # sd² = (0.09 + 0.01 + 0.01 + 0.09) / 3
    expected = 1.96 * (0.2 / 3) ** 0.5 / 2
    assert accuracy == pytest.approx((0.5, expected, 4), abs=1e-12)
