"""A layer that counts the images that pass it, forward, backward and twice backward."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Passes:
    """Images in the passes of a layer and of all its clones."""

    forward: int = 0
    backward: int = 0
    second: int = 0


class Counted(nn.Module):
    """The identity, with counts of images in its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = Passes()

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = _Forward.apply(features, self.passes)
        return found

    @property
    def gradients(self) -> int:
        """Forward passes with a backward pass, and 2 for each second derivative.

        A product of a Hessian and a vector passes the layer twice backwards: through
        the graph of the first backward pass, and again through that of the forward
        pass. Of backward passes of their own, those beyond the forward passes count 1.
        """
        passes = self.passes
        first = max(passes.forward, passes.backward - passes.second)
        return first + 2 * passes.second


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, passes: Passes) -> Tensor:
        ctx.passes = passes
        passes.forward += len(features)
        return features.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        return _Backward.apply(cotangent, ctx.passes), None


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cotangent: Tensor, passes: Passes) -> Tensor:
        ctx.passes = passes
        passes.backward += len(cotangent)
        return cotangent.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        ctx.passes.second += len(cotangent)
        return cotangent, None
