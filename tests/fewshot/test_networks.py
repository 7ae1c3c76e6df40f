import pytest
import torch

from l2l_evograd.fewshot.backbones import make_backbone
from l2l_evograd.fewshot.episodes import Episode
from l2l_evograd.fewshot.heads import (
    FewShotModel,
    ProtoNet,
    RelationNet,
    few_shot_accuracy,
    few_shot_loss,
    make_head,
)
from l2l_evograd.layers import feature_transforms

SUPPORT_Y = torch.tensor([1, 0, 2, 2, 1, 0])


def episode(size=32):
    generator = torch.Generator().manual_seed(0)
    support = torch.randn(6, 3, size, size, generator=generator)
    query = torch.randn(4, 3, size, size, generator=generator)
    return Episode(support, SUPPORT_Y, query, torch.tensor([0, 1, 2, 0]))


@pytest.mark.parametrize(
    ("name", "size", "channels", "maps", "layers"),
    [
        ("cnn4", 32, 64, 2, 4),
        ("cnn4", 84, 64, 5, 4),
        ("resnet10", 32, 512, 2, 7),
        ("resnet10", 96, 512, 3, 7),
        ("resnet18", 32, 512, 2, 11),
        ("resnet34", 32, 512, 2, 19),
    ],
)
def test_backbones_give_the_maps_they_announce(name, size, channels, maps, layers):
    backbone = make_backbone(name, size, feature_transforms=True)
    assert (backbone.out_channels, backbone.out_size) == (channels, maps)
    assert len(feature_transforms(backbone)) == layers
    assert backbone.training
    shape = backbone(torch.randn(2, 3, size, size)).shape
    assert shape == (2, channels, maps, maps)
    assert not len(feature_transforms(make_backbone(name, size)))


def test_the_full_size_stem_is_kept_for_large_images():
    assert make_backbone("resnet10", 224).layers[0].kernel_size == (7, 7)
    assert make_backbone("resnet10", 64).layers[0].kernel_size == (3, 3)


def test_finding_the_shape_leaves_statistics_and_random_state_alone():
    state = torch.get_rng_state()
    backbone = make_backbone("cnn4", 32)
    torch.set_rng_state(state)
    again = make_backbone("cnn4", 32)
    states = backbone.state_dict(), again.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert int(backbone.layers[0].normalize.num_batches_tracked) == 0


def test_prototypes_and_scores_equal_a_double_loop():
    torch.manual_seed(0)
    support = torch.randn(6, 4, 2, 2, dtype=torch.float64)
    query = torch.randn(3, 4, 2, 2, dtype=torch.float64)
    got = ProtoNet()(support, SUPPORT_Y, query, 3)
    for q in range(3):
        for c in range(3):
            members = [support[i] for i in range(6) if int(SUPPORT_Y[i]) == c]
            prototype = sum(members) / len(members)
            expected = -((query[q] - prototype) ** 2).sum()
            assert float(got[q, c]) == pytest.approx(float(expected), rel=1e-12)


def test_large_maps_are_averaged_before_distances_are_taken():
    support, query = torch.randn(6, 512, 3, 3), torch.randn(3, 512, 3, 3)
    pooled = ProtoNet()(support.mean((2, 3)), SUPPORT_Y, query.mean((2, 3)), 3)
    whole = ProtoNet()(support, SUPPORT_Y, query, 3)
    assert torch.allclose(whole, pooled, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_relations_equal_a_double_loop(size):
    torch.manual_seed(0)
    head = RelationNet(4, size).double().eval()
    support = torch.randn(6, 4, size, size, dtype=torch.float64)
    query = torch.randn(3, 4, size, size, dtype=torch.float64)
    got = head(support, SUPPORT_Y, query, 3)
    for q in range(3):
        for c in range(3):
            members = [support[i] for i in range(6) if int(SUPPORT_Y[i]) == c]
            pair = torch.cat([sum(members) / len(members), query[q]])[None]
            expected = head.score(head.compare(pair).flatten(1))
            assert got[q, c].item() == pytest.approx(expected.item(), rel=1e-10)


@pytest.mark.parametrize("head", ["protonet", "relationnet"])
@pytest.mark.parametrize("name", ["cnn4", "resnet10"])
def test_a_model_learns_an_episode_by_heart(name, head):
    torch.manual_seed(0)
    backbone = make_backbone(name, 32)
    model = FewShotModel(backbone, make_head(head, backbone))
    task = episode()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    first = few_shot_loss(model, task, 3)
    for _ in range(30):
        optimizer.zero_grad()
        loss = few_shot_loss(model, task, 3)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5 * float(first.detach())


def test_embedding_once_gives_what_the_whole_model_gives():
    backbone = make_backbone("cnn4", 32)
    model = FewShotModel(backbone, make_head("protonet", backbone)).eval()
    task = episode()
    whole = model(task, 3)
    maps = model.embed(torch.cat([task.support_x, task.query_x]))
    parts = model.head(maps[:6], SUPPORT_Y, maps[6:], 3)
    assert torch.allclose(whole, parts, rtol=1e-5)


def test_accuracy_counts_the_highest_scores():
    scores = torch.tensor([[3.0, 1.0], [0.0, 1.0], [2.0, 1.0], [0.0, 5.0]])
    assert few_shot_accuracy(scores, torch.tensor([0, 1, 1, 1])) == 0.75


def test_unknown_names_and_small_images_are_refused():
    with pytest.raises(
        ValueError, match="a backbone of cnn4, resnet10, resnet18, resnet34, got 'vgg'"
    ):
        make_backbone("vgg", 32)
    with pytest.raises(ValueError, match="an image size of at least 16, got 8"):
        make_backbone("cnn4", 8)
    with pytest.raises(ValueError, match="a head of protonet, relationnet, got 'gnn'"):
        make_head("gnn", make_backbone("cnn4", 32))
