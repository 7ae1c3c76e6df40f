"""Weight normalisation of which both derivatives are right.

torch 2.15 computes a wrong second derivative of its own on the CPU. Nothing here shares
code with the package.
"""

import torch
from torch.overrides import TorchFunctionMode


def normalised(v, g, dim=0):
    """g v/‖v‖, with a norm for each entry along ``dim``."""
    others = [d for d in range(v.dim()) if d != dim]
    return g * v / v.square().sum(others, keepdim=True).sqrt()


class RightNorm(TorchFunctionMode):
    """Lets modules with weight normalisation use :func:`normalised`."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        chosen = normalised if function is torch._weight_norm else function
        return chosen(*args, **(kwargs or {}))
