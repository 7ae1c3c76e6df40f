"""Second derivatives of a loss must be symmetric; where they are not, a warning."""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from l2l_evograd.replay.autograd_graph import functions_behind
from l2l_evograd.unroll.schedule import widest

# Looks at a run of many steps; a run of fewer is looked at in every step.
_LOOKS = 8

# Second derivatives that are so much smaller than earlier ones are not judged: those of
# a network that diverged or has learned its data are 0 but for rounding.
_SMALL = 1e-3


class Symmetry:
    """Warns once if autograd's second derivatives of a loss are those of no function.

    For random u, w and μ, with H = ∂g/∂θ: w·Hᵀu = u·Hᵀw, and, with λ,
    μ·(∂g/∂λ)ᵀu = u·(∂²ℓ/∂λ∂θ)ᵀμ. They differ if a hook or a custom backward pass
    changes the gradient on its way, or if torch's own second derivative is wrong, as
    that of weight normalisation is in torch 2.15.

    Args:
        steps: T; about 8 steps are looked at.
    """

    def __init__(self, steps: int) -> None:
        self._every = -(-steps // _LOOKS)
        self._largest: dict[str, float] = {}
        self.off = False

    def due(self, step: int) -> bool:
        """Return whether to look at a step."""
        return not self.off and step % self._every == 0

    def look(
        self,
        step: int,
        slopes: Sequence[Tensor],
        weights: Sequence[Tensor],
        direct: Sequence[Tensor | None],
        hyperparameters: Sequence[Tensor],
    ) -> None:
        """Look at a step.

        Args:
            step: the step, for the message.
            slopes: g on its graph, which is kept.
            weights: θ.
            direct: ∂ℓ/∂λ on its graph; None for one of λ without use.
            hyperparameters: λ.

        Cost: two backward passes through the graph of g, three if there are λ.
        """
        tolerance = _tolerance(slopes, weights)
        for product in _products(slopes, weights, direct, hyperparameters):
            largest = max(product.size, self._largest.get(product.kind, 0.0))
            self._largest[product.kind] = largest
            judged = product.size > _SMALL * largest
            distance = abs(product.left - product.right)
            if judged and distance > tolerance * product.size:
                self.off = True
        if self.off:
            warnings.warn(
                f"the second derivatives of the inner loss at step {step} are not "
                f"symmetric, so that hypergradients of this run may be wrong: a hook "
                f"or a custom backward pass changes the gradient on its way, or "
                f"torch's own derivative is wrong, as for weight normalisation and for "
                f"scale_grad_by_freq of an embedding; write that part in ordinary "
                f"operations, and check with finite differences of run_sgd",
                stacklevel=2,
            )


class _Product(NamedTuple):
    """Two ways to compute one number, and the size of what they were added up from."""

    kind: str
    left: float
    right: float
    size: float


def _products(
    slopes: Sequence[Tensor],
    weights: Sequence[Tensor],
    direct: Sequence[Tensor | None],
    hyperparameters: Sequence[Tensor],
) -> list[_Product]:
    places = [n for n, slope in enumerate(slopes) if slope.requires_grad]
    if not places:
        return []
    found = [slopes[n] for n in places]
    generator = torch.Generator(device=weights[0].device).manual_seed(0)
    u, w = _random(found, generator), _random(weights, generator)
    of_u = _pulled(found, [*weights, *hyperparameters], u)
    of_u, across = of_u[: len(weights)], of_u[len(weights) :]
    of_w = _pulled(found, weights, [w[n] for n in places])
    size = _length(of_u) + _length(of_w)
    own = [of_w[n] for n in places]
    products = [_Product("weights", _dot(w, of_u), _dot(u, own), size)]
    if hyperparameters:
        mu = _random(hyperparameters, generator)
        pairs = [(d, m) for d, m in zip(direct, mu, strict=True) if d is not None]
        pairs = [(d, m) for d, m in pairs if d.requires_grad]
        of_mu = [torch.zeros_like(weight) for weight in weights]
        if pairs:
            of_mu = _pulled([d for d, _ in pairs], weights, [m for _, m in pairs])
        size = _length(across) + _length(of_mu)
        own = [of_mu[n] for n in places]
        products.append(_Product("λ", _dot(mu, across), _dot(u, own), size))
    return products


def _random(tensors: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    # Drawn in one precision, because not all of them can be drawn everywhere.
    return [
        torch.randn(
            tensor.shape,
            generator=generator,
            device=generator.device,
            dtype=torch.float32,
        ).to(tensor)
        for tensor in tensors
    ]


def _pulled(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], vectors: Sequence[Tensor]
) -> list[Tensor]:
    found = torch.autograd.grad(
        outputs, inputs, vectors, retain_graph=True, allow_unused=True
    )
    return [
        torch.zeros_like(tensor) if grad is None else grad.detach()
        for grad, tensor in zip(found, inputs, strict=True)
    ]


def _dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    pairs = zip(left, right, strict=True)
    return sum(float((a * b).sum(dtype=widest(a.device))) for a, b in pairs)


def _length(tensors: Sequence[Tensor]) -> float:
    return math.hypot(*(float(torch.linalg.vector_norm(each)) for each in tensors))


def _tolerance(slopes: Sequence[Tensor], weights: Sequence[Tensor]) -> float:
    """Return the root of the rounding error of the lowest precision in use."""
    lowest = max(torch.finfo(weight.dtype).eps for weight in weights)
    names = {function.name() for function in functions_behind(slopes)}
    if "ToCopyBackward0" in names:  # autocast, or a cast of the user's
        lowest = max(lowest, torch.finfo(torch.bfloat16).eps)
    elif weights[0].device.type != "cpu":  # TensorFloat-32 has 10 bits
        lowest = max(lowest, torch.finfo(torch.float16).eps)
    return float(lowest**0.5)
