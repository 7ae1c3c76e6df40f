"""Perturbations of the weights, drawn again from a seed instead of stored.

A population of K candidates needs its perturbations ε_k up to three times: to build
θ_k = θ + ε_k, to project the cotangent, s_k = v·ε_k, and to merge the candidates.
Storing K copies of the weights would make memory grow with K. A :class:`Perturbations`
therefore stores the seed, and draws the same ε_k again, bit for bit, at every call.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from l2l_evograd.estimators.base import dot
from l2l_evograd.estimators.scaling import power_of_number
from l2l_evograd.seeds import derive_seed

FAMILIES = ("rademacher", "gaussian")
SAMPLINGS = ("plain", "antithetic", "orthogonal")


def _signs(
    count: int, scale: float, dtype: torch.dtype, generator: torch.Generator
) -> Tensor:
    """Return ``count`` independent numbers, ``scale`` or ``-scale``, shape (count,).

    Each random byte selects eight signs from a table. On a CPU this takes a twentieth
    of the time of one Bernoulli draw per number.
    """
    device = generator.device
    byte, bit = (torch.arange(n, device=device) for n in (256, 8))
    table = ((byte[:, None] >> bit & 1) * 2 - 1).to(dtype) * scale
    drawn = torch.empty(-(-count // 8), dtype=torch.uint8, device=device)
    drawn.random_(generator=generator)
    return table.index_select(0, drawn.int()).view(-1)[:count]


class Perturbations:
    """K perturbations ε_k of a list of tensors, E[ε_k ε_kᵀ] = σ² I.

    ``plain``: independent draws. ``antithetic``: ε_{k+K/2} = −ε_k. ``orthogonal``:
    ε_j·ε_k = 0 for j ≠ k, and each ε_k has the distribution of a plain draw. Gaussian
    draws are made orthogonal by Gram-Schmidt and rescaled to their original lengths
    (Choromanski et al., ICML 2018). Sign draws are rows of a Hadamard matrix with
    random signs on rows and columns. They are exactly orthogonal except on the last
    P mod 2^⌈log2 K⌉ weights.

    Args:
        like: the tensors to perturb. The perturbations have the same shapes, dtypes and
            devices. P is the total number of elements.
        count: K, at least 1.
        sigma: σ, standard deviation of every element.
        seed: the seed that determines all draws.
        family: ``"rademacher"`` (±σ) or ``"gaussian"``.
        sampling: ``"plain"``, ``"antithetic"`` (K even) or ``"orthogonal"`` (K <= P).

    Raises:
        ValueError: for an odd K with ``"antithetic"``, for more orthogonal directions
            than weights, or for complex weights.

    Cost:
        One draw of P numbers per :meth:`draw`, and memory for P numbers. Orthogonal
        Gaussian noise draws up to K times as many numbers per :meth:`draw`, and makes
        K²/2 draws once in the constructor.
    """

    def __init__(
        self,
        like: Sequence[Tensor],
        count: int,
        sigma: float,
        seed: int,
        family: str = "rademacher",
        sampling: str = "plain",
    ) -> None:
        self._like = [(t.shape, t.dtype, t.device) for t in like]
        # Noise with the strides of the weights is added to them in one sweep.
        self._strides = [torch.empty_like(t, device="meta").stride() for t in like]
        self._alike: dict[tuple[torch.dtype, torch.device], list[int]] = {}
        for place, tensor in enumerate(like):
            self._alike.setdefault((tensor.dtype, tensor.device), []).append(place)
        self.count = count
        self.sigma = sigma
        self.seed = seed
        self.family = family
        self.sampling = sampling
        size = sum(t.numel() for t in like)
        if any(t.is_complex() for t in like):
            raise ValueError(
                "perturbations of complex weights are not defined here; use "
                "estimator='guided' or 'exact', or keep real and imaginary parts as "
                "weights"
            )
        if sampling == "antithetic" and count % 2:
            raise ValueError(
                f"antithetic noise comes in pairs: expected an even number of "
                f"candidates, got {count}; use {count + 1}"
            )
        if sampling == "orthogonal" and count > size:
            raise ValueError(
                f"at most {size} perturbations of {size} weights can be orthogonal, "
                f"got {count} candidates; use fewer or sampling='plain'"
            )
        self._mixing: Tensor | None = None
        if sampling == "orthogonal" and family == "gaussian":
            self._mixing = self._gram_schmidt()

    def draw(self, k: int) -> list[Tensor]:
        """Return ε_k, with the same values at every call."""
        return self._draw(k, self.sigma)

    def _draw(self, k: int, sigma: float) -> list[Tensor]:
        if self.sampling == "antithetic":
            half = self.count // 2
            noise = self._independent(k % half, sigma)
            return noise if k < half else [t.neg_() for t in noise]
        if self._mixing is not None:
            row = self._mixing[k]
            total = self._independent(0, sigma * float(row[0]))
            for j in range(1, k + 1):
                part = self._independent(j, sigma * float(row[j]))
                torch._foreach_add_(total, part)
            return total
        if self.sampling == "orthogonal":
            return self._hadamard(k, sigma)
        return self._independent(k, sigma)

    @property
    def degrees_of_freedom(self) -> int:
        """E[Σ_k (ε_k − ε̄)(ε_k − ε̄)ᵀ] in units of σ² I: K − 1, or K if antithetic."""
        return self.count if self.sampling == "antithetic" else self.count - 1

    def project(self, direction: Sequence[Tensor]) -> Tensor:
        """Return s_k = v·ε_k for all k, shape (K,)."""
        scores, power = self.project_apart(direction)
        return scores * power

    def project_apart(self, direction: Sequence[Tensor]) -> tuple[Tensor, float]:
        """Return s_k/q for all k, shape (K,), and q, a power of two near σ.

        The draws are made with σ/q in place of σ, so that no product leaves the range
        of its dtype, however small σ is.
        """
        power = power_of_number(self.sigma)
        noise = (self._draw(k, self.sigma / power) for k in range(self.count))
        return torch.stack([dot(direction, part) for part in noise]), power

    def _generators(self, index: int) -> dict[torch.device, torch.Generator]:
        value = derive_seed(self.seed, index)
        return {
            device: torch.Generator(device).manual_seed(value)
            for device in {device for _, _, device in self._like}
        }

    def _independent(self, index: int, scale: float) -> list[Tensor]:
        """Return draw number ``index`` of the plain sampling, times ``scale``."""
        generators = self._generators(index)
        noise: list[Tensor] = [torch.empty(0)] * len(self._like)
        for (dtype, device), places in self._alike.items():
            sizes = [self._like[place][0].numel() for place in places]
            if self.family == "gaussian":
                flat = torch.empty(sum(sizes), dtype=dtype, device=device)
                flat.normal_(generator=generators[device]).mul_(scale)
            else:
                flat = _signs(sum(sizes), scale, dtype, generators[device])
            for place, part in zip(places, flat.split(sizes), strict=True):
                noise[place] = part.as_strided(
                    self._like[place][0], self._strides[place], part.storage_offset()
                )
        return noise

    def _hadamard(self, k: int, sigma: float) -> list[Tensor]:
        """Return row k of a Sylvester-Hadamard matrix, repeated, times random signs."""
        order = 1 << max(self.count - 1, 0).bit_length()
        signs = [1.0 if (k & i).bit_count() % 2 == 0 else -1.0 for i in range(order)]
        # The factor 1/(K − 1) of the estimate requires E[ε_j ε_kᵀ] = 0 for j ≠ k. The
        # random sign of the row ensures this.
        if derive_seed(self.seed, -2 - k) & 1:
            signs = [-sign for sign in signs]
        noise = self._independent(0, sigma)
        start = 0
        for tensor in noise:
            row = torch.tensor(signs, dtype=tensor.dtype, device=tensor.device)
            repeats = math.ceil(tensor.numel() / order) + 1
            offset = start % order
            pattern = row.repeat(repeats)[offset : offset + tensor.numel()]
            tensor.mul_(pattern.view(tensor.shape))
            start += tensor.numel()
        return noise

    def _gram_schmidt(self) -> Tensor:
        """Return A, shape (K, K), with orthogonal rows of A Z and |(A Z)_k| = |z_k|."""
        gram = torch.zeros(self.count, self.count, dtype=torch.float64)
        for j in range(self.count):
            left = self._independent(j, 1.0)
            for k in range(j + 1):
                value = float(dot(left, self._independent(k, 1.0)))
                gram[j, k] = gram[k, j] = value
        lengths = gram.diagonal().sqrt()
        identity = torch.eye(self.count, dtype=torch.float64)
        factor = torch.linalg.cholesky(gram)
        inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
        return lengths[:, None] * inverse


class PerturbationsOfTasks:
    """The perturbations of weights with a leading task axis, drawn for each task.

    Each task gets the perturbations that it would get alone.

    Args:
        tasks: the perturbations of each task.
    """

    def __init__(self, tasks: Sequence[Perturbations]) -> None:
        self._tasks = list(tasks)
        first = self._tasks[0]
        self.count = first.count
        self.degrees_of_freedom = first.degrees_of_freedom

    def draw(self, k: int) -> list[Tensor]:
        """Return ε_k of all tasks, each tensor with a leading task axis."""
        drawn = [task.draw(k) for task in self._tasks]
        return [torch.stack(parts) for parts in zip(*drawn, strict=True)]

    def project(self, direction: Sequence[Tensor]) -> Tensor:
        """Return s_k = v·ε_k for all k and all tasks, shape (K, tasks)."""
        scores, power = self.project_apart(direction)
        return scores * power

    def project_apart(self, direction: Sequence[Tensor]) -> tuple[Tensor, float]:
        """Return s_k/q, shape (K, tasks), and q, a power of two near σ."""
        columns, power = [], 1.0
        for place, task in enumerate(self._tasks):
            column, power = task.project_apart([v[place] for v in direction])
            columns.append(column)
        return torch.stack(columns, dim=1), power
