"""The check that a call left everything as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def untouched(model: nn.Module, *others: Tensor) -> Iterator[None]:
    """Check that tensors, gradients, flags and random state are bitwise as before."""
    tensors = [*model.parameters(), *model.buffers(), *others]
    before = [tensor.detach().clone() for tensor in tensors]
    grads = [None if t.grad is None else t.grad.clone() for t in tensors]
    flags = [tensor.requires_grad for tensor in tensors]
    modes = [child.training for child in model.modules()]
    random = torch.get_rng_state()
    yield
    assert [id(t) for t in (*model.parameters(), *model.buffers(), *others)] == [
        id(t) for t in tensors
    ]
    for tensor, value, grad in zip(tensors, before, grads, strict=True):
        assert torch.equal(tensor, value)
        assert (tensor.grad is None) == (grad is None)
        assert grad is None or tensor.grad is None or torch.equal(tensor.grad, grad)
    assert [tensor.requires_grad for tensor in tensors] == flags
    assert [child.training for child in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
