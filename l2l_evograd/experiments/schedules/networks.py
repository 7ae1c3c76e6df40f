"""Two small networks as functions of a dict of weights."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import conv2d

_HIDDEN = 32
_CHANNELS = (8, 16)
_KERNEL = 5


def initial_weights(
    network: str, shape: tuple[int, ...], classes: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw the initial weights: normal, with variance 1 / fan-in; biases are 0.

    Args:
        network: ``"mlp"``: images to 32 units with tanh to scores; ``"conv"``: two
            5 x 5 convolutions of 8 and 16 channels with stride 2 and tanh, and a
            linear layer.
        shape: channels, height and width of the images.
        classes: number of scores.
        generator: generator of the draws.
    """
    channels, height, width = shape
    sizes: tuple[tuple[int, ...], ...]
    if network == "mlp":
        sizes = ((_HIDDEN, math.prod(shape)), (classes, _HIDDEN))
    else:
        first, second = _CHANNELS
        left = second * _quarter(height) * _quarter(width)
        sizes = (
            (first, channels, _KERNEL, _KERNEL),
            (second, first, _KERNEL, _KERNEL),
            (classes, left),
        )
    weights = {}
    for number, size in enumerate(sizes):
        drawn = torch.randn(size, generator=generator)
        weights[f"weight{number}"] = drawn / math.sqrt(math.prod(size[1:]))
        weights[f"bias{number}"] = torch.zeros(size[0])
    return weights


def scores(network: str, params: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Return the scores of images, shape (N, classes).

    Args:
        network: as for :func:`initial_weights`.
        params: weights of that network.
        images: values 0 to 1, shape (N, C, H, W).
    """
    if network == "mlp":
        hidden = torch.tanh(images.flatten(1) @ params["weight0"].T + params["bias0"])
        return hidden @ params["weight1"].T + params["bias1"]
    maps = images
    for number in range(2):
        weight, bias = params[f"weight{number}"], params[f"bias{number}"]
        maps = torch.tanh(conv2d(maps, weight, bias, stride=2, padding=_KERNEL // 2))
    return maps.flatten(1) @ params["weight2"].T + params["bias2"]


def _quarter(side: int) -> int:
    """Return the side of a map after two convolutions with stride 2."""
    return -(-side // 4)
