"""Networks for small images: ResNet-32, WRN-28-10, and one for the built-in glyphs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from l2l_evograd.checks import InputError

NETWORKS = ("small", "resnet32", "wrn28-10")


def make_network(
    name: str,
    num_classes: int,
    width: int = 1,
    statistics: tuple[Sequence[float], Sequence[float]] | None = None,
) -> nn.Module:
    """Return an untrained network that maps images to scores.

    The initial weights are drawn from the global generator.

    Args:
        name: a name in :data:`NETWORKS`.
        num_classes: number of scores for each image.
        width: factor for the number of channels; must be 1 for "wrn28-10".
        statistics: mean and standard deviation of the channels, on a 0-255 scale;
            None: the images are normalised already.

    Raises:
        InputError: for an unknown name, or a width that the network does not have.
    """
    if name not in NETWORKS:
        raise InputError(f"unknown network {name!r}; choose from {', '.join(NETWORKS)}")
    if width < 1 or (name == "wrn28-10" and width != 1):
        raise InputError(
            f"expected a width of at least 1, and of 1 for wrn28-10, got {width} for "
            f"{name}"
        )
    if name == "small":
        network = _small(num_classes, width)
    elif name == "resnet32":
        network = _resnet32(num_classes, width)
    else:
        network = _wide_resnet(num_classes)
    _initialise(network)
    if statistics is None:
        return network
    return nn.Sequential(Normalise(*statistics), network)


class Normalise(nn.Module):
    """Computes (x − mean) / deviation for each channel of images of any dtype."""

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return normalised images, shape (N, C, H, W)."""
        mean, deviation = self.get_buffer("mean"), self.get_buffer("deviation")
        return (images.to(mean.dtype) - mean) / deviation


class Shortcut(nn.Module):
    """A shortcut that takes every other pixel and adds new channels of zeros."""

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.new_channels = new_channels

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of half the height and width, shape (N, C + new, H/2, W/2)."""
        front = self.new_channels // 2
        behind = self.new_channels - front
        return functional.pad(maps[:, :, ::2, ::2], [0, 0, 0, 0, front, behind])


class WideBlock(nn.Module):
    """A block of two convolutions after normalisation and ReLU, with a shortcut."""

    def __init__(self, before: int, after: int, halve: bool = False) -> None:
        super().__init__()
        stride = 2 if halve else 1
        self.first = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU())
        self.rest = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
        )
        self.shortcut: nn.Module | None = None
        if before != after:
            self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps, with half the height and width if the block halves them."""
        active = self.first(maps)
        direct = maps if self.shortcut is None else self.shortcut(active)
        total: Tensor = direct + self.rest(active)
        return total


def _resnet32(num_classes: int, width: int) -> nn.Module:
    """Return three stages of five blocks, with shortcuts that have no weights.

    Source: He et al., "Deep Residual Learning", CVPR 2016, section 4.2, option A.
    """
    from torchvision.models.resnet import BasicBlock  # slow to import

    channels = [16 * width, 16 * width, 32 * width, 64 * width]
    blocks: list[nn.Module] = []
    for stage in (1, 2, 3):
        before, after = channels[stage - 1], channels[stage]
        shortcut = None if stage == 1 else Shortcut(after - before)
        blocks.append(BasicBlock(before, after, min(stage, 2), shortcut))
        blocks.extend(BasicBlock(after, after) for _ in range(4))
    return nn.Sequential(
        nn.Conv2d(3, channels[0], 3, padding=1, bias=False),
        nn.BatchNorm2d(channels[0]),
        nn.ReLU(),
        *blocks,
        *_head(channels[-1], num_classes),
    )


def _wide_resnet(num_classes: int) -> nn.Module:
    """Return three stages of four blocks with 160, 320 and 640 channels.

    Source: Zagoruyko, Komodakis, "Wide Residual Networks", BMVC 2016.
    """
    channels = [16, 160, 320, 640]
    blocks: list[nn.Module] = []
    for stage in (1, 2, 3):
        blocks.append(WideBlock(channels[stage - 1], channels[stage], stage > 1))
        blocks.extend(WideBlock(channels[stage], channels[stage]) for _ in range(3))
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        *blocks,
        nn.BatchNorm2d(640),
        nn.ReLU(),
        *_head(640, num_classes),
    )


def _small(num_classes: int, width: int) -> nn.Module:
    """Return three convolutions, each of which halves the image."""
    channels = [3, 16 * width, 32 * width, 64 * width]
    layers: list[nn.Module] = []
    for before, after in zip(channels, channels[1:], strict=False):
        layers += [
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    last = nn.Linear(9 * channels[-1], num_classes)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten(), last)


def _head(channels: int, num_classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
