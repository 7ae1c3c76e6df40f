"""Small heads and feature maps for them."""

import torch
from torch import Tensor, nn

from l2l_evograd.experiments.crossdomain.networks.backbones import Backbone
from l2l_evograd.experiments.crossdomain.networks.heads import make_head

CHANNELS, SIZE, WAYS = 4, 3, 3
SUPPORT_Y = torch.tensor([1, 0, 2, 2, 1, 0])
QUERY_Y = torch.tensor([0, 2, 1, 1, 0])


def small_head(name: str, seed: int = 0) -> nn.Module:
    """A head for maps of 4 x 3 x 3 and three ways, its statistics no longer 0 and 1."""
    torch.manual_seed(seed)
    encoder = Backbone(nn.Conv2d(3, CHANNELS, 3, padding=1), SIZE)
    head = make_head(name, encoder, WAYS)
    for key, buffer in head.named_buffers():
        if key.endswith("running_mean"):
            buffer.uniform_(-0.2, 0.0)
        if key.endswith("running_var"):
            buffer.uniform_(0.1, 0.3)
    return head


def small_maps(seed: int, count: int) -> Tensor:
    """Positive numbers, as encoders end in ReLU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, CHANNELS, SIZE, SIZE, generator=generator)


def toy_maps(seed: int, each: int) -> tuple[Tensor, Tensor]:
    """Maps around a centre for each class, with their classes."""
    generator = torch.Generator().manual_seed(99)
    centres = torch.rand(WAYS, CHANNELS, SIZE, SIZE, generator=generator)
    labels = torch.arange(WAYS).repeat_interleave(each)
    return centres[labels] + 0.3 * small_maps(seed, len(labels)), labels
