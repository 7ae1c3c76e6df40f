"""A module that refers to its parts in every way, and snapshots of modules."""

from collections import OrderedDict, defaultdict

import torch
from torch import nn


class Entangled(nn.Module):
    """Refers to its parts in every way that a module may."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 3)
        self.tied = nn.Linear(3, 4)
        self.tied.weight = self.first.weight
        self.same = self.first
        self.path = [self.first, nn.Tanh(), (self.second,)]
        self.table = {"a": self.first, "deeper": {"b": [self.second]}}
        self.ordered = OrderedDict(z=self.second)
        self.by_default = defaultdict(list, k=[self.first])
        self.step = self.first.forward
        self.own_step = self.plus_one
        self.weights = [self.first.weight, self.second.weight]
        self.foreign = [nn.Linear(2, 2)]
        self.nothing = None
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("scratch", torch.ones(2), persistent=False)
        self.register_parameter("absent", None)

    def plus_one(self, x):
        return self.second(x) + 1

    def forward(self, x):
        self.count += 1
        x = torch.tanh(self.step(x)) + self.tied(x)
        return self.own_step(x) + self.path[2][0](x) + x @ self.weights[1].T


def tensors_of(module):
    return [*module.parameters(), *module.buffers()]


def fresh(module):
    return {
        id(t): torch.randn_like(t).requires_grad_(t.requires_grad)
        for t in tensors_of(module)
    }


def snapshot(module):
    """All that a user could see of a module: objects, values and flags."""
    return [
        (
            id(child),
            type(child),
            list(vars(child)),
            {
                k: (id(v), v.clone(), v._version, v.requires_grad)
                for k, v in [*child._parameters.items(), *child._buffers.items()]
                if v is not None
            },
            {k: id(v) for k, v in child._modules.items()},
            child.training,
            {k: id(v) for k, v in child._forward_hooks.items()},
            {k: id(v) for k, v in child._forward_pre_hooks.items()},
        )
        for child in module.modules()
    ]


def assert_same_snapshot(one, other):
    for a, b in zip(one, other, strict=True):
        assert a[:3] == b[:3] and a[4:] == b[4:]
        assert a[3].keys() == b[3].keys()
        for key, (identity, value, version, flag) in a[3].items():
            assert (identity, version, flag) == (b[3][key][0], *b[3][key][2:])
            assert torch.equal(value, b[3][key][1])
