"""A graph neural network over the images of an episode."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2l_evograd.experiments.crossdomain.networks.features import embedded

# Widths of the cross-domain benchmark's code.
_NODE = 128
_COMPARE = (192, 192, 96, 96)
_GROWTH = 48
_LAYERS = 2


class GraphNet(nn.Module):
    """Scores a query in a graph of the support images and the query.

    A node is an image. It has the embedding after a linear layer to 128 and batch norm,
    and the class as a one-hot vector. The query has 1/ways in place of every class. Two
    layers each add 48 numbers to every node. A last layer gives the scores at the node
    of the query:

        A_ij = softmax_{j ≠ i}(φ(|x_i − x_j|)),  x ← [x, ρ(batch norm(W [x, A x]))]

    φ has 1 x 1 convolutions to 192, 192, 96, 96 and 1, with batch norm and leaky ReLU
    between them. Each layer has its own φ. ρ is leaky ReLU. The last layer is only
    W [x, A x].

    Every query has its own graph, so in evaluation its scores do not depend on other
    queries. The benchmark's code puts one query of each class into a graph and gives it
    the vector of class 0. Its batch norms use the statistics of the batch in evaluation
    too; here they keep running statistics.

    Args:
        features: width of the embeddings.
        ways: number of classes; the shapes of the weights depend on it.

    Raises:
        ValueError: for an episode with another number of classes.

    Cost:
        φ for all (support + 1)² pairs of nodes of every query, three times. For 80
        queries and 25 support images, these are 54,080 pairs, and 1.0 GB is kept for
        the backward pass in float32; for 5 support images, 57 MB. 0.4 million weights.

    Source: Garcia, Bruna, ICLR 2018, section 4; widths as in Tseng et al., ICLR 2020.
    """

    def __init__(self, features: int, ways: int) -> None:
        super().__init__()
        self.ways = ways
        # The batch norm would remove a bias.
        self.project = nn.Sequential(
            nn.Linear(features, _NODE, bias=False), nn.BatchNorm1d(_NODE)
        )
        width = _NODE + ways
        self.layers = nn.ModuleList()
        self.norms = nn.ModuleList()
        for _ in range(_LAYERS):
            self.layers.append(GraphLayer(width, _GROWTH, bias=False))
            self.norms.append(nn.BatchNorm1d(_GROWTH))
            width += _GROWTH
        self.last = GraphLayer(width, ways)

    def forward(
        self, support: Tensor, support_y: Tensor, query: Tensor, ways: int
    ) -> Tensor:
        """Return scores, shape (n_query, ways); see :meth:`ProtoNet.forward`."""
        if ways != self.ways:
            raise ValueError(
                f"this graph network is for {self.ways} ways, got an episode with "
                f"{ways}: make the head with ways={ways}"
            )
        nodes = self.first_nodes(support, support_y, query)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            added = norm(layer(nodes).flatten(0, 1)).view(*nodes.shape[:2], _GROWTH)
            nodes = torch.cat([nodes, F.leaky_relu(added)], dim=2)
        return cast(Tensor, self.last(nodes))[:, -1]

    def first_nodes(self, support: Tensor, support_y: Tensor, query: Tensor) -> Tensor:
        """Return the nodes of every query's graph. The last node is the query.

        The shape is (n_query, n_support + 1, 128 + ways).
        """
        images = self.project(embedded(torch.cat([support, query])))
        known, unknown = images[: len(support)], images[len(support) :]
        classes = F.one_hot(support_y, self.ways).to(images.dtype)
        uniform = images.new_full((len(unknown), self.ways), 1 / self.ways)
        known = torch.cat([known, classes], dim=1)
        unknown = torch.cat([unknown, uniform], dim=1)
        return torch.cat(
            [known[None].expand(len(query), -1, -1), unknown[:, None]], dim=1
        )


class GraphLayer(nn.Module):
    """One layer: W [x, A x], where A comes from the differences between the nodes.

    Args:
        width: width of a node.
        out: width of the result.
        bias: whether W has a bias.
    """

    def __init__(self, width: int, out: int, bias: bool = True) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * width, out, bias=bias)
        compare: list[nn.Module] = []
        for channels in _COMPARE:
            compare += [
                nn.Conv2d(width, channels, 1, bias=False),
                nn.BatchNorm2d(channels),
                nn.LeakyReLU(inplace=True),
            ]
            width = channels
        # A bias would not change the soft-max.
        compare.append(nn.Conv2d(width, 1, 1, bias=False))
        self.compare = nn.Sequential(*compare)

    def forward(self, nodes: Tensor) -> Tensor:
        """Return new numbers for every node, shape (graphs, n, out)."""
        near = self.adjacency(nodes) @ nodes
        return cast(Tensor, self.mix(torch.cat([nodes, near], dim=2)))

    def adjacency(self, nodes: Tensor) -> Tensor:
        """Return A, shape (graphs, n, n). Rows add up to 1, and the diagonal is 0."""
        apart = (nodes[:, :, None] - nodes[:, None]).abs()
        alike = self.compare(apart.permute(0, 3, 1, 2))[:, 0]
        itself = torch.eye(nodes.shape[1], dtype=torch.bool, device=nodes.device)
        return cast(Tensor, alike.masked_fill(itself, -torch.inf).softmax(2))
