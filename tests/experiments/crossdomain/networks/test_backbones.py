import copy
import io

import pytest
import torch
from torch.nn import functional as F

from l2l_evograd.experiments.crossdomain.data.episodes import Episode
from l2l_evograd.experiments.crossdomain.networks.backbones import (
    in_evaluation_mode,
    make_backbone,
)
from l2l_evograd.experiments.crossdomain.networks.heads import (
    HEADS,
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
        ("conv4", 84, 64, 5, 4),
        ("conv6", 84, 64, 5, 6),
        ("conv6", 16, 64, 1, 6),
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


@pytest.mark.parametrize(
    ("name", "layers", "numbers"),
    [("resnet10", 7, 3712), ("resnet18", 11, 5632), ("resnet34", 19, 9344)],
)
def test_a_resnet_at_full_size_is_that_of_the_benchmark(name, layers, numbers):
    backbone = make_backbone(name, 224, feature_transforms=True)
    assert (backbone.out_channels, backbone.out_size) == (512, 7)
    transforms = feature_transforms(backbone)
    assert len(transforms) == layers
    assert sum(p.numel() for p in transforms.parameters()) == numbers


def drawn_statistics(backbone):
    for name, buffer in backbone.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)


@pytest.mark.parametrize(("name", "blocks"), [("conv4", 4), ("conv6", 6)])
def test_a_convolutional_encoder_halves_the_image_in_its_first_four_blocks(
    name, blocks
):
    torch.manual_seed(0)
    backbone = make_backbone(name, 32).double()
    drawn_statistics(backbone)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    state = backbone.state_dict()
    expected = images
    for i in range(blocks):
        part = {key: state[f"layers.{i}.{key}"] for key in ("conv.weight", "conv.bias")}
        norm = {
            key: state[f"layers.{i}.normalize.{key}"]
            for key in ("running_mean", "running_var", "weight", "bias")
        }
        expected = F.conv2d(expected, *part.values(), padding=1)
        expected = F.relu(F.batch_norm(expected, **norm))
        if i < 4:
            expected = F.max_pool2d(expected, 2)
    got = backbone.eval()(images)
    assert got.shape == (2, 64, 2, 2)
    assert torch.allclose(got, expected, rtol=1e-10)


def test_conv4_is_learn2learns_network_under_another_name():
    torch.manual_seed(0)
    first = make_backbone("cnn4", 32).state_dict()
    torch.manual_seed(0)
    second = make_backbone("conv4", 32).state_dict()
    assert first.keys() == second.keys()
    # learn2learn draws with torch alone here, so the weights are the same as well.
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", ["cnn4", "conv6", "resnet10"])
def test_an_encoder_can_be_copied_and_stored(name):
    backbone = make_backbone(name, 32, feature_transforms=True).eval()
    images = torch.randn(2, 3, 32, 32)
    stored = io.BytesIO()
    torch.save(backbone, stored)
    stored.seek(0)
    for other in (copy.deepcopy(backbone), torch.load(stored, weights_only=False)):
        assert torch.equal(other(images), backbone(images))


def test_evaluation_mode_ends_as_it_began_even_with_an_error():
    backbone = make_backbone("conv6", 32)
    backbone.layers[1].eval()
    before = [part.training for part in backbone.modules()]
    with pytest.raises(KeyError), in_evaluation_mode(backbone):
        assert not any(part.training for part in backbone.modules())
        raise KeyError
    assert [part.training for part in backbone.modules()] == before
    assert any(before) and not all(before)


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


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
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


@pytest.mark.parametrize(("size", "after"), [(1, 1), (2, 2), (3, 1), (5, 2), (7, 1)])
def test_relations_are_pooled_while_maps_are_at_least_three_wide(size, after):
    head = RelationNet(4, size)
    maps = head.compare(torch.randn(2, 8, size, size))
    assert maps.shape == (2, 4, after, after)
    assert head.score[0].in_features == 4 * after * after


@pytest.mark.parametrize(
    ("name", "head"),
    [("resnet10", "protonet"), ("resnet10", "relationnet")]
    + [("cnn4", head) for head in HEADS]
    + [("conv6", "protonet")],
)
def test_a_model_learns_an_episode_by_heart(name, head):
    torch.manual_seed(0)
    backbone = make_backbone(name, 32)
    model = FewShotModel(backbone, make_head(head, backbone, ways=3))
    task = episode()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    first = few_shot_loss(model, task, 3)
    for _ in range(30):
        optimizer.zero_grad()
        loss = few_shot_loss(model, task, 3)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5 * float(first.detach())


@pytest.mark.parametrize("head", HEADS)
def test_embedding_once_gives_what_the_whole_model_gives(head):
    torch.manual_seed(0)
    backbone = make_backbone("cnn4", 32)
    model = FewShotModel(backbone, make_head(head, backbone, ways=3)).eval()
    task = episode()
    whole = model(task, 3)
    maps = model.embed(torch.cat([task.support_x, task.query_x]))
    parts = model.head(maps[:6], SUPPORT_Y, maps[6:], 3)
    assert torch.allclose(whole, parts, rtol=1e-4)


def test_accuracy_counts_the_highest_scores():
    scores = torch.tensor([[3.0, 1.0], [0.0, 1.0], [2.0, 1.0], [0.0, 5.0]])
    assert few_shot_accuracy(scores, torch.tensor([0, 1, 1, 1])) == 0.75


def test_unknown_names_and_small_images_are_refused():
    known = "cnn4, conv4, conv6, resnet10, resnet18, resnet34"
    with pytest.raises(ValueError, match=f"a backbone of {known}, got 'vgg'"):
        make_backbone("vgg", 32)
    for name in ("cnn4", "conv6"):
        with pytest.raises(ValueError, match="an image size of at least 16, got 8"):
            make_backbone(name, 8)
    heads = "protonet, relationnet, relationnet-mse, matchingnet, gnn"
    with pytest.raises(ValueError, match=f"a head of {heads}, got 'maml'"):
        make_head("maml", make_backbone("cnn4", 32))
