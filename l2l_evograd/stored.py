"""The second-order graph of a single inner step, kept so that it is not built twice.

The exact pullback needs ∇_θ ℓ on a graph. The step itself has just made the forward and
backward pass, so its graph can serve, at the price of holding it until ``backward()``.
Only a learner's first step keeps it, and the next step, of whichever learner, lets go
of it: the graphs of several steps are computed again from the weights, each when its
turn comes. Then none stands beside that of the outer loss, and the most memory is that
of one or the other.
"""

import weakref
from collections.abc import Sequence

from torch import Tensor

from l2l_evograd.second_order import along


class StoredGraph:
    """∇_θ ℓ(θ, λ) on the graph that the inner loss was computed on.

    Args:
        gradients: ∇_θ ℓ, differentiable.
        params: θ as that graph knows it.
        inputs: λ as that graph knows it.
    """

    def __init__(
        self,
        gradients: Sequence[Tensor],
        params: Sequence[Tensor],
        inputs: Sequence[Tensor],
    ) -> None:
        self._graph: tuple[list[Tensor], list[Tensor], list[Tensor]] | None
        self._graph = list(gradients), list(params), list(inputs)

    def release(self) -> None:
        """Let the graph go."""
        self._graph = None

    def mixed(
        self, direction: Sequence[Tensor], wanted: Sequence[int], params_too: bool
    ) -> tuple[list[Tensor], list[Tensor]] | None:
        """Return ∂D/∂θ (or an empty list) and ∂D/∂λ, once; None if it was let go.

        As :func:`~l2l_evograd.second_order.exact_mixed`, without the two passes that
        lead to the gradient.
        """
        if self._graph is None:
            return None
        gradients, params, inputs = self._graph
        self._graph = None
        targets = [inputs[position] for position in wanted]
        return along(direction, gradients, params if params_too else [], targets)


class Shelf:
    """Room for one stored graph, shared by all clones of a learner."""

    def __init__(self) -> None:
        self._latest: weakref.ref[StoredGraph] | None = None

    def put(self, stored: StoredGraph | None) -> None:
        """Note the graph that is let go next; whoever uses it keeps it alive."""
        self._latest = None if stored is None else weakref.ref(stored)

    def clear(self) -> None:
        """Let go of the graph that is held, if there still is one."""
        stored = self._latest() if self._latest is not None else None
        if stored is not None:
            stored.release()
        self._latest = None

    def __deepcopy__(self, memo: object) -> "Shelf":
        return Shelf()

    def __reduce__(self) -> tuple[type["Shelf"], tuple[()]]:
        return Shelf, ()
