"""Heads that score queries against the support set, and the model around them."""

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2l_evograd.fewshot.backbones import Backbone

if TYPE_CHECKING:  # importing it would import learn2learn
    from l2l_evograd.fewshot.episodes import Episode

HEADS = ("protonet", "relationnet")

# Feature maps with more numbers than this are averaged over their pixels: squared
# distances grow with the dimension, and soft-max with them.
_LARGEST_EMBEDDING = 2048


class ProtoNet(nn.Module):
    """Score a query by its distance to the mean of every class.

    s_{q,c} = −‖f(x_q) − p_c‖², p_c = mean of f over the support images of class c. f is
    the flattened feature map, or its average over the pixels where the map holds more
    than 2,048 numbers.

    Source: Snell, Swersky, Zemel, NeurIPS 2017, eq. 1 and 2.
    """

    def forward(
        self, support: Tensor, support_y: Tensor, query: Tensor, ways: int
    ) -> Tensor:
        """Return scores, shape (n_query, ways).

        Args:
            support: feature maps of the support images.
            support_y: their classes, 0 to ways − 1.
            query: feature maps of the query images.
            ways: number of classes.
        """
        prototypes = class_means(_embedded(support), support_y, ways)
        queries = _embedded(query)
        return -(queries[:, None] - prototypes[None]).square().sum(-1)


class RelationNet(nn.Module):
    """Score a query by a network that compares its map with the mean map of a class.

    s_{q,c} = g([p_c; f(x_q)]), g: two blocks of 3 x 3 convolution, batch norm and ReLU,
    each with a 2 x 2 max pool while the map is at least 4 pixels wide, then two linear
    layers, to 8 and to 1. Scores go into soft-max and cross-entropy.

    Args:
        channels: C of the feature maps.
        size: their side in pixels.

    Source: Sung et al., CVPR 2018; the soft-max form of Tseng et al., ICLR 2020.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for width in (2 * channels, channels):
            blocks += [
                nn.Conv2d(width, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
            if size >= 4:
                blocks.append(nn.MaxPool2d(2))
                size //= 2
        self.compare = nn.Sequential(*blocks)
        self.score = nn.Sequential(
            nn.Linear(channels * size * size, 8), nn.ReLU(), nn.Linear(8, 1)
        )

    def forward(
        self, support: Tensor, support_y: Tensor, query: Tensor, ways: int
    ) -> Tensor:
        """Return scores, shape (n_query, ways); see :meth:`ProtoNet.forward`."""
        prototypes = class_means(support, support_y, ways)
        count = len(query)
        pairs = torch.cat(
            [
                prototypes[None].expand(count, -1, -1, -1, -1),
                query[:, None].expand(-1, ways, -1, -1, -1),
            ],
            dim=2,
        )
        related = self.compare(pairs.flatten(0, 1)).flatten(1)
        return cast(Tensor, self.score(related)).view(count, ways)


class FewShotModel(nn.Module):
    """An encoder and a head.

    Args:
        backbone: images -> feature maps.
        head: feature maps of support and query -> scores.
    """

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def embed(self, images: Tensor) -> Tensor:
        """Return feature maps, shape (N, C, h, w)."""
        return cast(Tensor, self.backbone(images))

    def forward(self, episode: "Episode", ways: int) -> Tensor:
        """Return the scores of the queries, shape (n_query, ways).

        Support and query images pass the encoder as one batch.
        """
        images = torch.cat([episode.support_x, episode.query_x])
        maps = self.embed(images)
        split = len(episode.support_x)
        return cast(
            Tensor, self.head(maps[:split], episode.support_y, maps[split:], ways)
        )


def make_head(name: str, backbone: Backbone) -> nn.Module:
    """Build a head for an encoder.

    Args:
        name: ``"protonet"`` or ``"relationnet"``.
        backbone: whose feature maps it compares.

    Raises:
        ValueError: for an unknown name.
    """
    if name == "protonet":
        return ProtoNet()
    if name == "relationnet":
        return RelationNet(backbone.out_channels, backbone.out_size)
    raise ValueError(f"expected a head of {', '.join(HEADS)}, got {name!r}")


def class_means(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Return the mean of ``features`` over each class, shape (ways, ...)."""
    belongs = F.one_hot(labels, ways).to(features.dtype)
    shares = belongs / belongs.sum(0, keepdim=True)
    means = shares.T @ features.flatten(1)
    return means.view(ways, *features.shape[1:])


def few_shot_loss(model: nn.Module, episode: "Episode", ways: int) -> Tensor:
    """Return the cross-entropy of the queries, a scalar."""
    return F.cross_entropy(model(episode, ways), episode.query_y)


def few_shot_accuracy(scores: Tensor, query_y: Tensor) -> float:
    """Return the fraction of queries whose highest score is that of their class."""
    return float((scores.argmax(1) == query_y).float().mean())


def _embedded(maps: Tensor) -> Tensor:
    flat = maps.flatten(1)
    if flat.shape[1] <= _LARGEST_EMBEDDING:
        return flat
    return maps.mean((-2, -1))
