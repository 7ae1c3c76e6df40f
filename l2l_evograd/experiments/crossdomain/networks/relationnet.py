"""Relation networks: a learned comparison of feature maps, in two forms."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from l2l_evograd.experiments.crossdomain.networks.features import class_means


class RelationNet(nn.Module):
    """Scores a query by a network that compares its map with the mean map of a class.

    s_{q,c} = g([p_c; f(x_q)]). g has two blocks of 3 x 3 convolution, batch norm and
    ReLU, then two linear layers, to 8 and to 1. A block has a 2 x 2 max pool if its map
    is at least 3 pixels wide. The 7 x 7 maps of a ResNet at 224 pixels become 3 x 3 and
    then 1 x 1. The loss is the cross-entropy of the soft-max of the scores.

    Args:
        channels: C of the feature maps.
        size: side of the feature maps in pixels.

    Source: Sung et al., CVPR 2018; the soft-max form of Tseng et al., ICLR 2020. In
    their code, the batch norms use the statistics of the batch in evaluation too. Here
    they keep running statistics, so the score of a query does not depend on others.
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
            if size >= 3:
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
        # The first convolution of [p_c; f(x_q)] is the sum of the convolutions of its
        # halves. They are needed once for each class and each query, not for each pair.
        first, *others = self.compare
        of_class, of_query = cast(Tensor, first.weight).chunk(2, dim=1)
        classes = F.conv2d(prototypes, of_class, padding=1)
        queries = F.conv2d(query, of_query, padding=1)
        related = (classes[None] + queries[:, None]).flatten(0, 1)
        for layer in others:
            related = layer(related)
        return cast(Tensor, self.score(related.flatten(1))).view(len(query), ways)


class RelationNetMSE(RelationNet):
    """The relation network as first published, with the squared error as loss.

    s_{q,c} = sigmoid(g([p_c; f(x_q)])). The target is 1 for the class of the query and
    0 for all others.

    Args:
        channels: C of the feature maps.
        size: side of the feature maps in pixels.

    Source: Sung et al., CVPR 2018, eq. 1 and 2, with the mean over queries and classes
    in place of the sum.
    """

    def forward(
        self, support: Tensor, support_y: Tensor, query: Tensor, ways: int
    ) -> Tensor:
        """Return scores, shape (n_query, ways); see :meth:`ProtoNet.forward`."""
        return super().forward(support, support_y, query, ways).sigmoid()

    def loss(self, scores: Tensor, query_y: Tensor) -> Tensor:
        """Return the mean squared error of scores to one-hot classes, a scalar."""
        targets = F.one_hot(query_y, scores.shape[1]).to(scores.dtype)
        return F.mse_loss(scores, targets)
