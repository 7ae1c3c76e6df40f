"""Matching networks with full context embeddings."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2l_evograd.experiments.crossdomain.networks.features import averaged

# Cosines from 0 to 1 differ too little, so their soft-max would be nearly flat.
_SHARPNESS = 100.0

# Keeps the logarithm finite if a class gets no attention.
_LEAST_PROBABILITY = 1e-6


class MatchingNet(nn.Module):
    """Scores a query by its attention to the support images of a class.

    f' and g' are the feature maps averaged over their pixels, and x_1 .. x_n are the
    support images in their order:

        g(x_i) = g'(x_i) + forward LSTM + backward LSTM over g'(x_1) .. g'(x_n)
        f(x): h_0 = f'(x), c_0 = 0, and for k = 1 .. n
            r = Σ_i softmax_i(h_{k−1}·g(x_i)) g(x_i)
            ĥ, c_k = LSTM(f'(x), [h_{k−1}, r], c_{k−1}),  h_k = ĥ + f'(x)
        s_{q,c} = log(10⁻⁶ + Σ_{i in c} softmax_i(100 · max(0, cos(f(x_q), g(x_i)))))

    The number of steps n, the start h_0, the factor 100, the cosines cut off at 0 and
    the 10⁻⁶ come from the cross-domain benchmark's code. The paper does not specify the
    first two and does not have the others. The cross-entropy of these scores is the
    negative logarithm of the probability of the class, up to a constant of ways · 10⁻⁶.

    Args:
        channels: C of the feature maps, and of every LSTM.

    Cost:
        2 n steps of an LSTM for each episode, and n for each query; 28 C² weights.

    Source: Vinyals et al., NeurIPS 2016, eq. 1 and 3 to 6, appendix A.1 and A.2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        # These are cells instead of nn.LSTM, because cells can be differentiated twice
        # on every device and can run with replaced weights.
        self.forwards = nn.LSTMCell(channels, channels)
        self.backwards = nn.LSTMCell(channels, channels)
        # This cell gets r with its input, not with its state. The result is the same,
        # because the gates are linear in input, state and r.
        self.attend = nn.LSTMCell(2 * channels, channels)

    def forward(
        self, support: Tensor, support_y: Tensor, query: Tensor, ways: int
    ) -> Tensor:
        """Return scores, shape (n_query, ways); see :meth:`ProtoNet.forward`."""
        context = self.embed_support(averaged(support))
        queries = self.embed_queries(averaged(query), context)
        # In half precision, 100 times a cosine would have an error of several tenths.
        with torch.autocast(queries.device.type, enabled=False):
            kind = torch.promote_types(queries.dtype, torch.float32)
            cosines = _directions(queries.to(kind)) @ _directions(context.to(kind)).T
            attention = (_SHARPNESS * cosines.relu()).softmax(1)
            belongs = F.one_hot(support_y, ways).to(kind)
            return (attention @ belongs + _LEAST_PROBABILITY).log()

    def embed_support(self, features: Tensor) -> Tensor:
        """Return g, shape (n, C), from g' of the support images in their order."""
        ahead = _run(self.forwards, features)
        back = _run(self.backwards, features.flip(0)).flip(0)
        return features + ahead + back

    def embed_queries(self, features: Tensor, context: Tensor) -> Tensor:
        """Return f, shape (n_query, C), from f' of the queries, independently for each.

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
