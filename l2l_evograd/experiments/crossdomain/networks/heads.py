"""Heads that score queries against the support set, and the model around them."""

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2l_evograd.experiments.crossdomain.networks.backbones import Backbone
from l2l_evograd.experiments.crossdomain.networks.features import (
    embedded_width,
)
from l2l_evograd.experiments.crossdomain.networks.gnn import GraphNet
from l2l_evograd.experiments.crossdomain.networks.matchingnet import MatchingNet
from l2l_evograd.experiments.crossdomain.networks.protonet import ProtoNet
from l2l_evograd.experiments.crossdomain.networks.relationnet import (
    RelationNet,
    RelationNetMSE,
)

if TYPE_CHECKING:  # this import would import learn2learn
    from l2l_evograd.experiments.crossdomain.data.episodes import Episode

HEADS = ("protonet", "relationnet", "relationnet-mse", "matchingnet", "gnn")


class FewShotModel(nn.Module):
    """An encoder and a head.

    Args:
        backbone: maps images to feature maps.
        head: maps feature maps of support and query images to scores. A head whose
            loss is not the cross-entropy has a method ``loss(scores, query_y)``.
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

        Support and query images go through the encoder as one batch.
        """
        images = torch.cat([episode.support_x, episode.query_x])
        maps = self.embed(images)
        split = len(episode.support_x)
        return cast(
            Tensor, self.head(maps[:split], episode.support_y, maps[split:], ways)
        )


def make_head(name: str, backbone: Backbone, ways: int = 5) -> nn.Module:
    """Build a head for an encoder.

    Args:
        name: ``"protonet"``, ``"relationnet"`` (soft-max), ``"relationnet-mse"``,
            ``"matchingnet"`` or ``"gnn"``.
        backbone: encoder whose feature maps the head compares.
        ways: number of classes of an episode; only the weights of the graph network
            depend on it.

    Raises:
        ValueError: for an unknown name.
    """
    channels, size = backbone.out_channels, backbone.out_size
    if name == "protonet":
        return ProtoNet()
    if name == "relationnet":
        return RelationNet(channels, size)
    if name == "relationnet-mse":
        return RelationNetMSE(channels, size)
    if name == "matchingnet":
        return MatchingNet(channels)
    if name == "gnn":
        return GraphNet(embedded_width(channels, size), ways)
    raise ValueError(f"expected a head of {', '.join(HEADS)}, got {name!r}")


def few_shot_loss(model: nn.Module, episode: "Episode", ways: int) -> Tensor:
    """Return the loss of the queries with the loss of the model's head, a scalar."""
    scores = model(episode, ways)
    return score_loss(getattr(model, "head", None), scores, episode.query_y)


def score_loss(head: object, scores: Tensor, query_y: Tensor) -> Tensor:
    """Return the loss of scores, a scalar.

    Args:
        head: head that made the scores. The loss is that of its method
            ``loss(scores, query_y)`` if it has one, else the mean cross-entropy.
        scores: shape (n_query, ways).
        query_y: classes of the queries, 0 to ways − 1.
    """
    loss: Any = getattr(head, "loss", F.cross_entropy)
    return cast(Tensor, loss(scores, query_y))


def few_shot_accuracy(scores: Tensor, query_y: Tensor) -> float:
    """Return the fraction of queries whose class has the highest score."""
    return float((scores.argmax(1) == query_y).float().mean())
