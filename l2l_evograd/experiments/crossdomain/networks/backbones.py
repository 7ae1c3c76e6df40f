"""Encoders that turn images into feature maps."""

import contextlib
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from l2l_evograd.layers import add_feature_transforms

# Number of basic blocks in each of the four stages.
_STAGES = {
    "resnet10": [1, 1, 1, 1],
    "resnet18": [2, 2, 2, 2],
    "resnet34": [3, 4, 6, 3],
}
# Number of convolutional blocks; the first four halve the image.
_BLOCKS = {"cnn4": 4, "conv4": 4, "conv6": 6}
_HALVINGS = 4

BACKBONES = (*_BLOCKS, *_STAGES)

_LEAST = 16  # smallest side in pixels, because four halvings must leave one pixel
_SMALL = 64  # images up to this side get a stem that keeps their resolution


class Backbone(nn.Module):
    """An encoder of images.

    Args:
        layers: maps images (N, 3, S, S) to feature maps (N, C, h, w).
        image_size: S.

    Attributes:
        out_channels: C.
        out_size: h = w.
    """

    def __init__(self, layers: nn.Module, image_size: int) -> None:
        super().__init__()
        self.layers = layers
        channels, size = _shape(layers, image_size)
        self.out_channels = channels
        self.out_size = size

    def forward(self, images: Tensor) -> Tensor:
        """Return feature maps, shape (N, out_channels, out_size, out_size)."""
        return cast(Tensor, self.layers(images))


def make_backbone(
    name: str, image_size: int, feature_transforms: bool = False
) -> Backbone:
    """Build an encoder.

    Args:
        name: ``"cnn4"``, learn2learn's four convolutional blocks of 64 channels;
            ``"conv4"``, the same network under the cross-domain benchmark's name;
            ``"conv6"``, with two more blocks that do not halve the image; or
            ``"resnet10"``, ``"resnet18"`` or ``"resnet34"``, torchvision's ResNets.
            ``"resnet10"`` has one basic block per stage. For images up to 64 pixels,
            ResNets have a 3 x 3 stem with stride 1 in place of the 7 x 7 stem.
        image_size: side of the images, in pixels.
        feature_transforms: whether to add feature-wise transformation layers.

    Raises:
        ValueError: for an unknown name, or images too small for the encoder.

    Source: conv4, conv6 and the ResNets are those of Tseng et al., ICLR 2020. The
    convolutional networks start from learn2learn's initial weights.
    """
    if name not in BACKBONES:
        raise ValueError(f"expected a backbone of {', '.join(BACKBONES)}, got {name!r}")
    if image_size < _LEAST:
        raise ValueError(
            f"{name} halves the image four times: expected an image size of at least "
            f"{_LEAST}, got {image_size}"
        )
    if name in _BLOCKS:
        layers = _convolutional(_BLOCKS[name])
    else:
        layers = _resnet(_STAGES[name], image_size)
    if feature_transforms:
        add_feature_transforms(layers)
    return Backbone(layers, image_size)


@contextlib.contextmanager
def in_evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put ``module`` into evaluation mode for the body, then restore all modes."""
    before = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in before.items():
            part.training = training


def _convolutional(blocks: int) -> nn.Module:
    from learn2learn.vision.models.cnn4 import ConvBase, ConvBlock

    # ConvBase is the base of CNN4. It returns feature maps, which RelationNet needs.
    layers: nn.Module = ConvBase(hidden=64, channels=3, max_pool=True, layers=_HALVINGS)
    for number in range(_HALVINGS, blocks):
        # Without a pool, the convolution has a stride of twice max_pool_factor.
        block = ConvBlock(64, 64, 3, max_pool=False, max_pool_factor=0.5)
        # This replaces a lambda, which could not be pickled.
        block.max_pool = nn.Identity()
        layers.add_module(str(number), block)
    return layers


def _resnet(blocks: list[int], image_size: int) -> nn.Module:
    from torchvision.models.resnet import BasicBlock, ResNet

    network = ResNet(BasicBlock, blocks)
    if image_size <= _SMALL:
        network.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
    return nn.Sequential(
        *(child for name, child in network.named_children() if name not in _HEAD)
    )


_HEAD = ("avgpool", "fc")


def _shape(layers: nn.Module, image_size: int) -> tuple[int, int]:
    """Return the channels and the side of the feature maps, from one forward pass."""
    with in_evaluation_mode(layers), torch.no_grad():
        maps = layers(torch.zeros(1, 3, image_size, image_size))
    return maps.shape[1], maps.shape[2]
