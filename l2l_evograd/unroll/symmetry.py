"""Second derivatives of a loss must be symmetric; where they are not, a warning."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from l2l_evograd.replay.autograd_graph import functions_behind
from l2l_evograd.unroll.schedule import widest

# Looks at a run of many steps; a run of fewer is looked at in every step.
_LOOKS = 8


def looked_at(step: int, steps: int) -> bool:
    """Return whether the second derivatives at a step are looked at."""
    return step % -(-steps // _LOOKS) == 0


@dataclass(frozen=True)
class _Product:
    """Two ways to compute one number, and the size of what they were added up from."""

    left: float
    right: float
    size: float

    def differs(self, tolerance: float) -> bool:
        return abs(self.left - self.right) > tolerance * self.size


def warn_if_not_symmetric(
    step: int,
    slopes: Sequence[Tensor],
    weights: Sequence[Tensor],
    direct: Sequence[Tensor | None],
    hyperparameters: Sequence[Tensor],
) -> bool:
    """Warn if autograd's second derivatives of a loss are those of no function.

    For random u, w and μ, with H = ∂g/∂θ: w·Hᵀu = u·Hᵀw, and, with λ,
    μ·(∂g/∂λ)ᵀu = u·(∂²ℓ/∂λ∂θ)ᵀμ. They differ if a hook or a custom backward pass
    changes the gradient on its way, or if torch's own second derivative is wrong, as
    that of weight normalisation is in torch 2.15.

    Args:
        step: the step, for the message.
        slopes: g on its graph, which is kept.
        weights: θ.
        direct: ∂ℓ/∂λ on its graph; None for one of λ without use.
        hyperparameters: λ.

    Returns:
        Whether there was a warning.

    Cost: two backward passes through the graph of g, three if there are λ.
    """
    found = [slope for slope in slopes if slope.requires_grad]
    if not found:
        return False
    tolerance = _tolerance(slopes, weights)
    generator = torch.Generator(device=weights[0].device).manual_seed(0)

    def random(tensors: Sequence[Tensor]) -> list[Tensor]:
        return [
            torch.randn(
                tensor.shape,
                generator=generator,
                device=generator.device,
                dtype=torch.float32,
            ).to(tensor)
            for tensor in tensors
        ]

    u, w = random(found), random(weights)
    of_u = _pulled(found, [*weights, *hyperparameters], u)
    own = [
        vector for slope, vector in zip(slopes, w, strict=True) if slope.requires_grad
    ]
    of_w = _pulled(found, weights, own)
    places = [n for n, slope in enumerate(slopes) if slope.requires_grad]
    products = [
        _Product(
            _dot(w, of_u[: len(w)]),
            _dot(u, [of_w[n] for n in places]),
            _length(of_u[: len(w)]) + _length(of_w),
        )
    ]
    if hyperparameters:
        mu = random(hyperparameters)
        pairs = [(d, m) for d, m in zip(direct, mu, strict=True) if d is not None]
        pairs = [(d, m) for d, m in pairs if d.requires_grad]
        of_mu = [torch.zeros_like(weight) for weight in weights]
        if pairs:
            of_mu = _pulled([d for d, _ in pairs], weights, [m for _, m in pairs])
        across = of_u[len(w) :]
        products.append(
            _Product(
                _dot(mu, across),
                _dot(u, [of_mu[n] for n in places]),
                _length(across) + _length(of_mu),
            )
        )
    wrong = any(product.differs(tolerance) for product in products)
    if wrong:
        warnings.warn(
            f"the second derivatives of the inner loss at step {step} are not "
            f"symmetric, so that hypergradients of this run may be wrong: a hook or a "
            f"custom backward pass changes the gradient on its way, or torch's own "
            f"derivative is wrong, as for weight normalisation and for "
            f"scale_grad_by_freq of an embedding; write that part in ordinary "
            f"operations, and check with finite differences of run_sgd",
            stacklevel=2,
        )
    return wrong


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
