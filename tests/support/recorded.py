"""Losses recorded as a learner records them, and made into functions again."""

import torch

from l2l_evograd.replay.program import Program
from l2l_evograd.replay.tensor import Recording


def program_of(function, variables, hold=True, behind=False, buffers=(), marked=()):
    """Return the program of ``function(*variables)``, and what that gave."""
    with Recording(buffers, marked) as record:
        value = function(*variables)
    assert record.on
    return Program(value, variables, hold, behind), value


def variables(*shapes, seed=0):
    """Tensors that require grad, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    return [torch.randn(shape, **options).requires_grad_() for shape in shapes]


def both_derivatives(value, tensors):
    """Return a value, its gradient, and the gradient of the gradient's square."""
    first = _gradient(value, tensors, create_graph=True)
    square = sum(g.square().sum() for g in first)
    second = _gradient(square, tensors) if square.requires_grad else []
    return [value.detach(), *(g.detach() for g in first), *second]


def _gradient(value, tensors, create_graph=False):
    found = torch.autograd.grad(
        value, tensors, create_graph=create_graph, allow_unused=True
    )
    pairs = zip(found, tensors, strict=True)
    return [torch.zeros_like(t) if g is None else g for g, t in pairs]


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
