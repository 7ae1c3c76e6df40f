"""Warp layers for convolutional encoders, which are the identity at first."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from l2l_evograd.checks import InputError, check_choice, check_count
from l2l_evograd.encoders import LEARN2LEARN_CNN4, comes_from, residual_blocks


class WarpLayer2d(nn.Module):
    """A layer ω between the layers of a task learner, with ω(x) = x at first.

    Adaptation does not change ω. The gradients of the task learner's weights pass
    through it, so that ω preconditions them: a linear ω by a constant matrix, another
    one by a matrix that depends on the data.

    Args:
        num_features: C, channels of the input.
        kind: ``"scale"``: one factor for each channel; ``"conv1x1"`` or ``"conv3x3"``
            (default): a convolution with bias; ``"residual"``: the only one that is not
            linear, x + conv3x3(relu(conv3x3(x))).

    Raises:
        ValueError: for less than one channel, or an unknown kind.

    Source: Flennerhag et al., "Meta-Learning with Warped Gradient Descent", ICLR 2020,
    equation 6. The paper does not state how warp layers start; at the identity, the
    first meta-step is that of the model without them.
    """

    def __init__(self, num_features: int, kind: str = "conv3x3") -> None:
        super().__init__()
        check_count(num_features, "num_features")
        check_choice(kind, tuple(KINDS), "kind")
        self.num_features = num_features
        self.kind = kind
        self.warp = KINDS[kind](num_features)

    def forward(self, features: Tensor) -> Tensor:
        """Return the warped feature maps, shape (N, C, H, W)."""
        warped: Tensor = self.warp(features)
        return warped


class _Scale(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        return features * self.factor


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)
        self.outer = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.outer.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.outer(self.inner(features).relu())


def _convolution(channels: int, size: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, channels, size, padding=size // 2)
    nn.init.dirac_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


KINDS: dict[str, Callable[[int], nn.Module]] = {
    "scale": _Scale,
    "conv1x1": lambda channels: _convolution(channels, 1),
    "conv3x3": lambda channels: _convolution(channels, 3),
    "residual": _Residual,
}


def add_warp_layers(model: nn.Module, kind: str = "conv3x3") -> nn.Module:
    """Put a warp layer after every block of an encoder, in place.

    A block of learn2learn's CNN4 or OmniglotCNN, or of a torchvision ResNet, becomes
    ``nn.Sequential(block, WarpLayer2d)`` under its own name. The outputs of the model
    stay the same, because a warp layer starts as the identity.

    Args:
        model: the encoder, or a module that contains it.
        kind: as for :class:`WarpLayer2d`.

    Returns:
        ``model``.

    Raises:
        ValueError: if the model has warp layers already, or no such block; for an
            unknown kind.
    """
    check_choice(kind, tuple(KINDS), "kind")
    if len(warp_layers(model)):
        raise InputError(
            "expected a model without warp layers, got one that has some already; "
            "build a new one or use warp_layers(model)"
        )
    blocks = _blocks(model)
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if id(child) in blocks
    ]
    if not places:
        raise InputError(
            f"found no place for warp layers in {type(model).__name__}: expected "
            f"blocks of learn2learn's CNN4 or OmniglotCNN, or of a torchvision "
            f"ResNet; put WarpLayer2d, or a layer of your own, between the layers of "
            f"other models, and name it: WarpGrad(model, lr, warp=...)"
        )
    for parent, name, block in places:
        norm = blocks[id(block)]
        layer = WarpLayer2d(norm.num_features, kind)
        example = next(block.parameters())
        layer.to(example.device, example.dtype)
        layer.train(block.training)
        parent._modules[name] = nn.Sequential(block, layer)
    return model


def warp_layers(model: nn.Module) -> nn.ModuleList:
    """Return the warp layers of a model or learner, in order."""
    return nn.ModuleList(m for m in model.modules() if isinstance(m, WarpLayer2d))


def _blocks(model: nn.Module) -> dict[int, nn.BatchNorm2d]:
    """Return, by the id of each block, its last norm, which knows the channels."""
    found: dict[int, Any] = {}
    for block in residual_blocks(model):  # a bottleneck has three norms
        found[id(block)] = block.bn3 if hasattr(block, "bn3") else block.bn2
    for block in model.modules():
        if comes_from(block, LEARN2LEARN_CNN4) and hasattr(block, "normalize"):
            found[id(block)] = block.normalize
    return found
