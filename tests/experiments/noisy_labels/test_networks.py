import pytest
import torch
from torch import nn

from l2l_evograd.experiments.noisy_labels.networks import (
    NETWORKS,
    Normalise,
    Shortcut,
    WideBlock,
    make_network,
)


def size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("width", "parameters"),
    [(1, 464_154), (2, 1_849_898), (3, 4_157_242), (4, 7_386_186), (5, 11_536_730)],
)
def test_resnet32_has_the_published_number_of_parameters(width: int, parameters: int):
    with torch.device("meta"):
        assert size(make_network("resnet32", 10, width)) == parameters


def test_wrn_28_10_has_the_published_number_of_parameters():
    with torch.device("meta"):
        assert size(make_network("wrn28-10", 10)) == 36_479_194


@pytest.mark.parametrize("name", ["small", "resnet32"])
@pytest.mark.parametrize("side", [20, 32])
def test_a_network_scores_each_class(name: str, side: int):
    network = make_network(name, 7, statistics=([127.0] * 3, [60.0] * 3))
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    assert network(images).shape == (2, 7)


def test_resnet32_halves_the_image_twice_and_has_31_convolutions():
    network = make_network("resnet32", 10)
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == 31
    maps = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert network[:-3](maps).shape == (1, 64, 8, 8)


@pytest.mark.parametrize(("before", "halve", "side"), [(8, False, 8), (4, True, 4)])
def test_a_wide_block_is_two_convolutions_and_a_shortcut(
    before: int, halve: bool, side: int
):
    block = WideBlock(before, 8, halve)
    nn.init.zeros_(block.rest[-1].weight)
    maps = torch.randn(2, before, 8, 8)
    shortcut = maps if block.shortcut is None else block.shortcut(block.first(maps))
    assert torch.equal(block(maps), shortcut)
    assert shortcut.shape == (2, 8, side, side)


def test_a_shortcut_without_weights_fills_up_with_zeros():
    maps = torch.randn(2, 4, 6, 6)
    out = Shortcut(4)(maps)
    assert out.shape == (2, 8, 3, 3)
    assert torch.equal(out[:, 2:6], maps[:, :, ::2, ::2])
    assert not out[:, :2].any() and not out[:, 6:].any()


def test_bytes_are_normalised_channel_by_channel():
    images = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)
    normalised = Normalise([5.0, 10.0, 15.0], [5.0, 5.0, 5.0])(images)
    assert normalised.flatten().tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("name", "width", "message"),
    [
        ("vgg", 1, f"unknown network 'vgg'; choose from {', '.join(NETWORKS)}"),
        ("resnet32", 0, "a width of at least 1"),
        ("wrn28-10", 2, "of 1 for wrn28-10, got 2"),
    ],
)
def test_networks_that_do_not_exist_are_refused(name: str, width: int, message: str):
    with pytest.raises(ValueError, match=message):
        make_network(name, 10, width)
