"""A small classifier and batches for it, from seeds of their own."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F


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


def meta_gradient(meta, steps, adapt=None):
    """Return the loss after some steps, and the gradients of the initial weights."""
    x, y = batch(1)
    xq, yq = batch(2)
    learner = meta.clone()
    for _ in range(steps):
        if adapt is None:
            learner.adapt(F.cross_entropy(learner(x), y))
        else:
            adapt(learner, x, y)
    loss = F.cross_entropy(learner(xq), yq)
    loss.backward()
    grads = [p.grad.clone() for p in meta.module.parameters()]
    return loss.item(), grads


def assert_close(first, second, rtol=1e-8):
    """Compare two results of :func:`meta_gradient`."""
    assert first[0] == pytest.approx(second[0], rel=rtol)
    for a, b in zip(first[1], second[1], strict=True):
        assert torch.allclose(a, b, rtol=rtol, atol=1e-14)
