"""Operations of which torch's own second derivative is wrong, and what stands in.

In torch 2.15, ``gradgradcheck`` fails for two operations without any error:

- weight normalisation, ``torch._weight_norm``: its fused kernel saves ‖v‖ as a
  constant, so that the second derivative lacks the term of ∂‖v‖/∂v.
  :func:`weight_norm` is the same function in ordinary operations.
- ``nn.Embedding(scale_grad_by_freq=True)``: its gradient is not the derivative of its
  value, so that no hypergradient follows from values of the loss; and double backward
  forgets the scale.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode

from l2l_evograd.replay.autograd_graph import functions_behind

_aten = torch.ops.aten


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Return g v/‖v‖, with ‖v‖ over all dimensions but ``dim``, all if it is -1."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _interface(v: Tensor, g: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    norms = torch.norm_except_dim(v, 2, dim)
    return v * (g / norms), norms


#: What stands in for a call of a replay that is differentiated twice.
INSTEAD = {_aten._weight_norm_interface.default: _interface}


class RightTwice(TorchFunctionMode):
    """Compute weight normalisation in ordinary operations in the body of a ``with``.

    Both derivatives of what is computed there are right.

    Cost: about a microsecond for each call of a torch function in the body.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function, or what stands in for it."""
        if function is torch._weight_norm:
            function = weight_norm
        return function(*args, **(kwargs or {}))


def normalises_weights(model: nn.Module) -> bool:
    """Say whether a module of ``model`` has weight normalisation, of either kind."""
    for child in model.modules():
        hooks = child._forward_pre_hooks.values()
        if isinstance(child, _WeightNorm) or any(
            isinstance(hook, WeightNorm) for hook in hooks
        ):
            return True
    return False


def warn_of_wrong_derivatives(
    tensors: Iterable[Tensor], twice: bool = True, instead: str = ""
) -> None:
    """Warn if a derivative behind tensors is wrong in torch itself.

    Args:
        tensors: an inner loss on its autograd graph.
        twice: whether this graph is differentiated twice. If not, only operations
            whose first derivative is not that of their value are named.
        instead: what gives the right answer for weight normalisation, for the message.

    Cost: one walk over the graph.
    """
    for function in functions_behind(tensors):
        name = function.name()
        if name == "EmbeddingBackward0":
            # Other releases of torch may not tell.
            if getattr(function, "_saved_scale_grad_by_freq", False):
                warnings.warn(
                    "the gradient of nn.Embedding(scale_grad_by_freq=True) is not the "
                    "derivative of the loss, and torch's second derivative of it is "
                    "wrong, so that hypergradients may be wrong; use "
                    "scale_grad_by_freq=False, and divide by the frequency in the loss",
                    stacklevel=3,
                )
                return
        elif twice and name == "WeightNormInterfaceBackward0":
            warnings.warn(
                f"torch's second derivative of weight normalisation is wrong, so that "
                f"hypergradients and second-order meta-gradients may be wrong; "
                f"{instead or 'compute the weights as g * v / v.norm() yourself'}",
                stacklevel=3,
            )
            return
