"""What stands in a script around a learner: a model, data, tensors of its own."""

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

WAYS = 3


class Net(nn.Module):
    """Two parts, batch statistics, a buffer that forward passes write to."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh())
        self.head = nn.Linear(6, WAYS)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.head(self.features(x))


def problem(seed=0):
    """Return the model and all that a script has beside it."""
    torch.manual_seed(seed)
    d = SimpleNamespace(model=Net(), body=nn.Linear(4, 4), other=nn.Linear(WAYS, 1))
    d.x, d.xq, d.x2 = torch.randn(9, 4), torch.randn(9, 4), torch.randn(9, 4)
    d.y = torch.arange(9) % WAYS
    d.yq = torch.arange(9) // WAYS
    d.lam = torch.rand(9, requires_grad=True)
    d.temperature = torch.tensor(1.3, requires_grad=True)
    d.teacher = nn.Linear(4, WAYS)
    d.tensors = [
        *d.model.parameters(),
        *d.body.parameters(),
        *d.other.parameters(),
        d.lam,
        d.temperature,
    ]
    return d


def query(learner, d):
    return F.cross_entropy(learner(d.xq), d.yq)


def cases():
    """Return an empty collection of ways to adapt, and the decorator that fills it."""
    found = {}

    def case(function):
        found[function.__name__] = function
        return function

    return found, case
