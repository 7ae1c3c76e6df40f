"""Ordinary parts to build random modules of, each from (n, 4) to (n, 4).

There is nothing in them that a package may refuse.
"""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

WIDTH = 4


class Surroundings:
    """What a module may use that is not its own; made anew for each run.

    Attributes:
        outside: a tensor that requires grad, for closures.
        film: a network that makes conditioning tensors.
        plain: whether to leave out what must not change a number (checkpoints, which
            ``functional_call`` cannot compute again at its weights).
    """

    def __init__(self, plain: bool) -> None:
        self.outside = torch.linspace(0.5, 1.5, WIDTH).requires_grad_()
        self.film = nn.Linear(WIDTH, WIDTH)
        self.plain = plain

    def tensors(self) -> list[torch.Tensor]:
        return [self.outside, *self.film.parameters()]


class Block(nn.Module):
    """One linear layer and whatever ``after`` does with its output."""

    def __init__(self, surroundings):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.__dict__["around"] = surroundings
        self.prepare()

    def prepare(self):
        pass

    def forward(self, x):
        return self.after(torch.tanh(self.layer(x)))


def block(after, prepare=None):
    body = {"after": after} if prepare is None else {"after": after, "prepare": prepare}
    return type("Made", (Block,), body)


class Layered(nn.Module):
    """Another module behind a linear layer, and a tanh behind it."""

    def __init__(self, build):
        super().__init__()
        self.layer, self.inner = nn.Linear(WIDTH, WIDTH), build()

    def forward(self, x):
        return torch.tanh(self.inner(self.layer(x)))


def layered(build):
    return lambda surroundings: Layered(build)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer, self.out = kind(2, 3, batch_first=True), nn.Linear(3, WIDTH)

    def forward(self, x):
        return self.out(self.layer(x.reshape(len(x), 2, 2))[0][:, -1])


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv1d(1, 2, 3, padding=1)

    def forward(self, x):
        return torch.tanh(self.layer(x[:, None])).mean(1)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.two.weight = self.one.weight

    def forward(self, x):
        return F.linear(torch.tanh(self.one(x)), self.two.weight.t(), self.two.bias)


class Signs(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(3, 2), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        words = (x > -0.5).long() + (x > 0.5).long()
        return x + self.out(self.table(words).flatten(1))


def parametrized(function):
    return lambda: function(nn.Linear(WIDTH, WIDTH))


def evaluating(build):
    return lambda: build().eval()


def frozen():
    return nn.Linear(WIDTH, WIDTH).requires_grad_(False)


def norm(**settings):
    return lambda: nn.BatchNorm1d(WIDTH, **settings)


ORDINARY = {
    "linear": block(lambda s, h: h),
    "relu": lambda around: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()),
    "batch norm": layered(norm()),
    "batch norm, no average": layered(norm(momentum=None)),
    "batch norm, evaluating": lambda around: Layered(norm()).eval(),
    "layer norm": layered(lambda: nn.LayerNorm(WIDTH)),
    "group norm": layered(lambda: nn.GroupNorm(2, WIDTH)),
    "dropout": layered(lambda: nn.Dropout(0.3)),
    "dropout, evaluating": lambda around: Layered(lambda: nn.Dropout(0.3)).eval(),
    "frozen": layered(frozen),
    "convolution": lambda around: Convolution(),
    "LSTM": lambda around: Recurrent(nn.LSTM),
    "GRU": lambda around: Recurrent(nn.GRU),
    "embedding": lambda around: Signs(),
    "tied": lambda around: Tied(),
    "weight norm": layered(parametrized(parametrizations.weight_norm)),
    "noise": block(lambda s, h: h * (1 + 0.3 * torch.randn_like(h))),
}
