"""The initial weights, and the gradient of their scale."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from l2l_evograd.checks import InputError
from l2l_evograd.unroll.groups import Groups

Init = Mapping[str, Tensor]


class Initial:
    """Initial weights e^s ε with a learned s, or ε itself.

    Args:
        init: None, or ``{"scale": s}`` with s a tensor of no dimension, for all
            weights, or of shape (groups,).
        given: ε, the weights that the user gave.
        groups: the groups of the weights.

    Attributes:
        learned: whether there is a scale.
        width: number of values of s, 0 without a scale.

    Raises:
        TypeError: if ``init`` is not such a dictionary.
        InputError: for another shape, or a value that is not finite.
    """

    def __init__(
        self, init: Init | None, given: Sequence[Tensor], groups: Groups
    ) -> None:
        self.learned = init is not None
        self.width = 0
        self._given = given
        self._columns = [0] * len(given)
        if init is None:
            return
        if not isinstance(init, Mapping) or set(init) != {"scale"}:
            raise TypeError(
                f"expected init to be {{'scale': tensor}}, got {init!r}; the run then "
                f"starts at exp(scale) times params"
            )
        scale = init["scale"]
        if not isinstance(scale, Tensor) or not scale.is_floating_point():
            raise TypeError(
                f"expected init['scale'] to be a tensor of floats, got {scale!r}"
            )
        if scale.dim() and tuple(scale.shape) != (groups.count,):
            raise InputError(
                f"expected init['scale'] to have no dimension, or shape "
                f"({groups.count},) for {groups.count} groups, got "
                f"{tuple(scale.shape)}"
            )
        if not bool(torch.isfinite(scale).all()):
            raise InputError("expected init['scale'] to be finite")
        self._scale = scale.detach()
        self.width = scale.numel()
        if scale.dim():
            self._columns = list(groups.of)

    def column(self, weight: int) -> int:
        """Return which value of s belongs to a weight."""
        return self._columns[weight]

    def leaf(self) -> Tensor | None:
        """Return s as a leaf of autograd's graph, shape (width,)."""
        if not self.learned:
            return None
        return self._scale.reshape(-1).clone().requires_grad_()

    def weights(self, leaf: Tensor | None = None) -> list[Tensor]:
        """Return θ_0, on the graph of ``leaf`` if it is given."""
        if not self.learned:
            return [weight.detach().clone() for weight in self._given]
        factors = (self._scale.reshape(-1) if leaf is None else leaf).exp().unbind()
        return [
            weight.detach() * factors[column].to(weight)
            for weight, column in zip(self._given, self._columns, strict=True)
        ]

    def gradient(self, cotangents: Sequence[Tensor]) -> Tensor:
        """Return dL/ds, shape (width,), from dL/dθ_0: dL/dθ_0 · θ_0 in each group."""
        found = torch.zeros(self.width, dtype=torch.float64)
        for number, (cotangent, start) in enumerate(
            zip(cotangents, self.weights(), strict=True)
        ):
            found[self.column(number)] += (cotangent * start).sum().cpu()
        return found

    def shaped(self, found: Tensor | None) -> dict[str, Tensor]:
        """Return a gradient of s as the user gave s; empty without a scale."""
        if not self.learned or found is None:
            return {}
        scale = self._scale
        return {"scale": found.detach().to(scale).reshape(scale.shape)}
