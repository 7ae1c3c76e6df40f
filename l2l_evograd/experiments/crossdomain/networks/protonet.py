"""Prototypical networks, which compare queries with the mean of every class."""

from torch import Tensor, nn

from l2l_evograd.experiments.crossdomain.networks.features import class_means, embedded


class ProtoNet(nn.Module):
    """Scores a query by its squared distance to the mean of every class.

    s_{q,c} = −‖f(x_q) − p_c‖², where p_c is the mean of f over the support images of
    class c. f is the flattened feature map, or its average over the pixels if the map
    has more than 2,048 numbers.

    Source: Snell, Swersky, Zemel, NeurIPS 2017, eq. 1 and 2.
    """

    def forward(
        self, support: Tensor, support_y: Tensor, query: Tensor, ways: int
    ) -> Tensor:
        """Return scores, shape (n_query, ways).

        Args:
            support: feature maps of the support images.
            support_y: classes of the support images, 0 to ways − 1.
            query: feature maps of the query images.
            ways: number of classes.
        """
        prototypes = class_means(embedded(support), support_y, ways)
        queries = embedded(query)
        return -(queries[:, None] - prototypes[None]).square().sum(-1)
