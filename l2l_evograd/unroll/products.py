"""Products of the Hessian with many tangents at once."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


class Products:
    """H Z_j + ∂g/∂h_j for columns j, with g = ∇_θ ℓ and H its Jacobian.

    The product is ∂(g·Z_j + e_j·∂ℓ/∂λ)/∂θ, because second derivatives commute; e_j is
    a unit vector for h_j inside ℓ, else 0.

    Args:
        slopes: g on its graph.
        weights: θ.
        direct: ∂ℓ/∂λ on its graph, one tensor for each of λ; None for one without use.
        hyperparameters: λ.
        chunk_size: number of columns at once; None for all. With 1, ``vmap`` is not
            used.

    Cost: about one gradient of ℓ for each column; memory of ``chunk_size`` backward
    passes.
    """

    def __init__(
        self,
        slopes: Sequence[Tensor],
        weights: Sequence[Tensor],
        direct: Sequence[Tensor | None],
        hyperparameters: Sequence[Tensor],
        chunk_size: int | None,
    ) -> None:
        self._slopes = slopes
        self._direct = direct
        self._weights = weights
        self._hyperparameters = hyperparameters
        self._chunk_size = chunk_size

    def __call__(
        self, tangents: Sequence[Tensor], count: int, inside: int
    ) -> Iterator[tuple[slice, list[Tensor | None]]]:
        """Return the products with the first columns, chunk by chunk.

        Args:
            tangents: Z for each weight, shape (columns, *weight.shape).
            count: number of columns to multiply with.
            inside: how many of these stand for λ; they come first, in their order.

        Returns:
            For each chunk its columns, and for each weight the products, shape
            (columns in the chunk, *weight.shape), or None if they are 0.
        """
        size = count if self._chunk_size is None else self._chunk_size
        for begin in range(0, count, max(size, 1)):
            columns = slice(begin, min(begin + size, count))
            pairs = [
                (slope, tangent[columns])
                for slope, tangent in zip(self._slopes, tangents, strict=True)
                if slope.requires_grad
            ]
            pairs += self._units(columns, inside)
            yield columns, self._multiply(pairs, last=columns.stop == count)

    def _units(self, columns: slice, inside: int) -> list[tuple[Tensor, Tensor]]:
        """Return ∂ℓ/∂λ and rows of the unit matrix, for the columns of λ."""
        if columns.start >= inside:
            return []
        found = []
        first = 0  # the column of the first entry of this tensor of λ
        for part, owner in zip(self._direct, self._hyperparameters, strict=True):
            if part is not None and part.requires_grad:
                rows = part.new_zeros(columns.stop - columns.start, part.numel())
                rows.diagonal(columns.start - first).fill_(1)
                found.append((part, rows.reshape(-1, *part.shape)))
            first += owner.numel()
        return found

    def _multiply(
        self, pairs: Sequence[tuple[Tensor, Tensor]], last: bool
    ) -> list[Tensor | None]:
        if not pairs:
            return [None] * len(self._weights)
        outputs = [output for output, _ in pairs]
        vectors = [vector for _, vector in pairs]
        batched = self._chunk_size != 1
        found = torch.autograd.grad(
            outputs,
            self._weights,
            vectors if batched else [vector[0] for vector in vectors],
            retain_graph=not last,
            allow_unused=True,
            is_grads_batched=batched,
        )
        if batched:
            return list(found)
        return [None if grad is None else grad[None] for grad in found]
