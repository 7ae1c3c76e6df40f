"""What ``.detach()`` cuts off, held at the value it had at θ.

Autograd treats a detached tensor as a constant. A finite difference of the loss would
not: at moved weights the detached tensor moves too, and the difference picks up a
derivative that was meant to be cut, as it would through Meta-Weight-Net's weights of
detached losses. Estimates of ∂D/∂λ therefore evaluate the loss with detached tensors
held; Algorithm 1, which compares whole losses, evaluates it without.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from l2l_evograd.history import packs_saved_tensors

DETACHING = frozenset({Tensor.detach, torch.detach})


class DetachedValues(TorchFunctionMode):
    """Keep what the calls of ``detach`` return inside a ``with`` block, in order.

    Attributes:
        values: what they returned.
        packed: as :class:`~l2l_evograd.history.Node` has it, for any call at all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Tensor] = []
        self.packed = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call the function; keep the result if it cuts."""
        # torch.compile traces this method, but cannot trace the question.
        if not torch.compiler.is_compiling():
            self.packed = self.packed or packs_saved_tensors()
        result = func(*args, **(kwargs or {}))
        if func in DETACHING:
            self.values.append(result)
        return result


class HeldDetached(TorchFunctionMode):
    """Return kept values in place of what ``detach`` would return, in order.

    Raises:
        RuntimeError: if the calls do not repeat themselves.
    """

    def __init__(self, values: Iterable[Tensor]) -> None:
        super().__init__()
        self._values = iter(values)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call the function, or return what it returned at θ."""
        result = func(*args, **(kwargs or {}))
        if func not in DETACHING:
            return result
        held = next(self._values, None)
        if held is None or held.shape != result.shape:
            raise RuntimeError(
                "the inner loss called detach() in another order when it was computed "
                "again: expected a loss that does the same at all weights; take what "
                "depends on the values of the weights out of its control flow"
            )
        return held


def holding(
    values: Iterable[Tensor], hold: bool
) -> contextlib.AbstractContextManager[Any]:
    """Return a context that holds ``values``, or one that does nothing."""
    return HeldDetached(values) if hold else contextlib.nullcontext()
