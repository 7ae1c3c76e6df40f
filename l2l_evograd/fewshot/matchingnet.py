"""Matching networks with full context embeddings."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2l_evograd.fewshot.features import averaged

# Cosines lie within 1 of each other, so a soft-max of them is nearly flat.
_SHARPNESS = 100.0

# Keeps the logarithm finite where no attention falls on a class.
_LEAST_PROBABILITY = 1e-6


class MatchingNet(nn.Module):
    """Score a query by the attention it pays to the support images of a class.

    With f', g' the feature maps averaged over their pixels, in the order in which the
    support images x_1 .. x_n come:

        g(x_i) = g'(x_i) + forward LSTM + backward LSTM over g'(x_1) .. g'(x_n)
        f(x): h_0 = f'(x), c_0 = 0, and for k = 1 .. n
            r = Σ_i softmax_i(h_{k−1}·g(x_i)) g(x_i)
            ĥ, c_k = LSTM(f'(x), [h_{k−1}, r], c_{k−1}),  h_k = ĥ + f'(x)
        s_{q,c} = log(10⁻⁶ + Σ_{i in c} softmax_i(100 · max(0, cos(f(x_q), g(x_i)))))

    The number of steps n, the start h_0, the factor 100, the cosines cut off at 0 and
    the 10⁻⁶ are those of the cross-domain benchmark's code; the paper leaves the first
    two open and has none of the others. Cross-entropy of these scores is the negative
    logarithm of the class's probability, up to a constant of ways · 10⁻⁶.

    Args:
        channels: C of the feature maps, and of every LSTM.

    Cost:
        2 n steps of an LSTM for an episode, n for every query; 28 C² weights.

    Source: Vinyals et al., NeurIPS 2016, eq. 1 and 3 to 6, appendix A.1 and A.2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Cells rather than nn.LSTM: they can be differentiated twice on every device,
        # and run with weights from anywhere.
        self.forwards = nn.LSTMCell(channels, channels)
        self.backwards = nn.LSTMCell(channels, channels)
        # A cell that takes r with its input computes the same as one that takes it
        # with its state: the gates are linear in all three.
        self.attend = nn.LSTMCell(2 * channels, channels)

    def forward(
        self, support: Tensor, support_y: Tensor, query: Tensor, ways: int
    ) -> Tensor:
        """Return scores, shape (n_query, ways); see :meth:`ProtoNet.forward`."""
        context = self.embed_support(averaged(support))
        queries = self.embed_queries(averaged(query), context)
        # A hundred times a cosine of half precision would be off by several tenths.
        with torch.autocast(queries.device.type, enabled=False):
            kind = torch.promote_types(queries.dtype, torch.float32)
            cosines = _directions(queries.to(kind)) @ _directions(context.to(kind)).T
            attention = (_SHARPNESS * cosines.relu()).softmax(1)
            belongs = F.one_hot(support_y, ways).to(kind)
            return (attention @ belongs + _LEAST_PROBABILITY).log()

    def embed_support(self, features: Tensor) -> Tensor:
        """Return g, shape (n, C), of g' of the support images in their order."""
        ahead = _run(self.forwards, features)
        back = _run(self.backwards, features.flip(0)).flip(0)
        return features + ahead + back

    def embed_queries(self, features: Tensor, context: Tensor) -> Tensor:
        """Return f, shape (n_query, C), of f' of the queries, each on its own.

        Args:
            features: f'.
            context: g of the support images.
        """
        hidden, cell = features, torch.zeros_like(features)
        for _ in range(len(context)):
            read = (hidden @ context.T).softmax(1) @ context
            step = torch.cat([features, read], dim=1)
            hidden, cell = self.attend(step, (hidden, cell))
            hidden = hidden + features
        return hidden


def _directions(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=1)


def _run(lstm: nn.LSTMCell, sequence: Tensor) -> Tensor:
    """Return the outputs of an LSTM over a sequence, shape (n, C)."""
    hidden = cell = torch.zeros_like(sequence[:1])
    outputs = []
    for item in sequence.split(1):
        hidden, cell = lstm(item, (hidden, cell))
        outputs.append(hidden)
    return torch.cat(outputs)
