"""Small modules of every kind that learners meet, in float64 unless asked."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

WAYS, BATCH = 3, 8


class Recurrent(nn.Module):
    """A recurrent layer over the features taken as a sequence, and a linear head."""

    def __init__(self, kind, **settings):
        super().__init__()
        self.layer = kind(2, 4, batch_first=True, **settings)
        self.head = nn.Linear(self.layer.hidden_size, WAYS)

    def forward(self, x):
        return self.head(self.layer(x.view(len(x), 3, 2))[0][:, -1])


class Attentive(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.attention = nn.MultiheadAttention(2, 2, dropout=dropout, batch_first=True)
        self.head = nn.Linear(6, WAYS)

    def forward(self, x):
        x = x.view(len(x), 3, 2)
        return self.head(self.attention(x, x, x)[0].flatten(1))


class Transformer(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            2, 2, 5, dropout=dropout, batch_first=True, activation="gelu"
        )
        self.head = nn.Linear(6, WAYS)

    def forward(self, x):
        return self.head(self.layer(x.view(len(x), 3, 2)).flatten(1))


class Words(nn.Module):
    """Embeddings of the signs of the features; ``tied`` uses them for the output."""

    def __init__(self, tied=False):
        super().__init__()
        self.embedding = nn.Embedding(WAYS, 4)
        self.mix = nn.Linear(24, 4)
        self.out = nn.Linear(4, WAYS, bias=False)
        if tied:
            self.out.weight = self.embedding.weight

    def forward(self, x):
        words = (x > -0.5).long() + (x > 0.5).long()
        return self.out(torch.tanh(self.mix(self.embedding(words).flatten(1))))


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 2, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(6, WAYS)

    def forward(self, x):
        x = self.norm(self.conv(x.view(len(x), 1, 2, 3)))
        return self.head(F.max_pool2d(F.relu(x), 2).flatten(1))


def stack(*middle, first=6):
    return nn.Sequential(nn.Linear(first, 6), *middle, nn.Tanh(), nn.Linear(6, WAYS))


def frozen():
    model = stack(nn.LayerNorm(6))
    model[0].weight.requires_grad_(False)
    model[1].requires_grad_(False)
    return model


def parametrized(function):
    model = stack()
    function(model[0])
    return model


def evaluating(model):
    return model.eval()


ZOO = {
    "batch norm": lambda: stack(nn.BatchNorm1d(6)),
    "batch norm, no average": lambda: stack(nn.BatchNorm1d(6, momentum=None)),
    "batch norm, eval": lambda: evaluating(stack(nn.BatchNorm1d(6))),
    "group norm": lambda: stack(nn.GroupNorm(2, 6)),
    "layer norm": lambda: stack(nn.LayerNorm(6)),
    "dropout": lambda: stack(nn.Dropout(0.4)),
    "frozen": frozen,
    "LSTM": lambda: Recurrent(nn.LSTM),
    "LSTM, two layers, dropout": lambda: Recurrent(nn.LSTM, num_layers=2, dropout=0.3),
    "GRU": lambda: Recurrent(nn.GRU),
    "attention": lambda: Attentive(0.0),
    "attention, dropout": lambda: Attentive(0.3),
    "transformer": lambda: Transformer(0.3),
    "transformer, eval": lambda: evaluating(Transformer(0.3)),
    "embedding": Words,
    "tied": lambda: Words(tied=True),
    "weight norm": lambda: parametrized(parametrizations.weight_norm),
    "spectral norm": lambda: parametrized(parametrizations.spectral_norm),
    "orthogonal": lambda: parametrized(
        lambda m: parametrizations.orthogonal(m, orthogonal_map="cayley")
    ),
    "images": Images,
}
WITH_KINKS = {"images"}


def problem(name, dtype=torch.float64):
    torch.manual_seed(0)
    model = ZOO[name]().to(dtype)
    x, xq = torch.randn(2, BATCH, 6, dtype=dtype)
    y, yq = torch.arange(BATCH) % WAYS, torch.arange(BATCH) // 3 % WAYS
    return model, x, y, xq, yq


def episode(x, y, xq, yq, steps, on_support=lambda value: value):
    """Return what adapts a learner some steps and gives the loss on other data."""

    def run(meta):
        learner = meta.clone()
        for _ in range(steps):
            learner.adapt(F.cross_entropy(on_support(learner(x)), y))
        return F.cross_entropy(learner(xq), yq)

    return run
