"""A small classifier and batches for it, from seeds of their own."""

import torch
from torch import nn


def network(activation=nn.Tanh, norm=True):
    torch.manual_seed(0)
    layers = [nn.Linear(4, 8), activation(), nn.Linear(8, 3)]
    if norm:
        layers.insert(1, nn.BatchNorm1d(8))
    return nn.Sequential(*layers)


def batch(seed, size=10):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 4, generator=generator)
    return x, torch.randint(3, (size,), generator=generator)
