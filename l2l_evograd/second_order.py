"""∂D/∂θ and ∂D/∂λ by double backward, on kernels that can be differentiated twice."""

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from l2l_evograd.graph import differentiable_again, is_compiled
from l2l_evograd.losses import InnerLoss, gradient
from l2l_evograd.perturbations import dot


def exact_mixed(
    loss: InnerLoss,
    params: Sequence[Tensor],
    direction: Sequence[Tensor],
    wanted: Sequence[int],
    params_too: bool = False,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return ∂D/∂θ (or an empty list) and ∂D/∂λ by double backward.

    Raises:
        RuntimeError: if the loss goes through a function that cannot be differentiated
            twice, neither as it is nor on the plain kernels.
    """
    leaves = [loss.leaves[position] for position in wanted]
    weights = [param.detach().requires_grad_() for param in params]
    with torch.enable_grad():
        slopes = _slopes(loss, weights)
    return along(direction, slopes, weights if params_too else [], leaves)


def along(
    direction: Sequence[Tensor],
    slopes: Sequence[Tensor],
    params: Sequence[Tensor],
    inputs: Sequence[Tensor],
) -> tuple[list[Tensor], list[Tensor]]:
    """Return ∂D/∂params and ∂D/∂inputs of D = v·∇_θ ℓ; the graph is freed.

    Args:
        direction: v.
        slopes: ∇_θ ℓ on the graph of the others.
        params: θ, or none of it.
        inputs: of λ.
    """
    with torch.enable_grad():
        derivative = dot(direction, slopes)
    found = gradient(derivative, [*params, *inputs])
    return found[: len(params)], found[len(params) :]


def _slopes(loss: InnerLoss, weights: Sequence[Tensor]) -> list[Tensor]:
    """Return ∇_θ ℓ on a graph, on kernels whose backward pass has a derivative.

    Those of fused attention never have one. Those of cuDNN do, but for recurrent
    layers, and what torch.compile makes does not; these two are switched off only if
    they are met.
    """
    compiled = False
    for retry in (False, True):
        with contextlib.ExitStack() as kernels:
            kernels.enter_context(sdpa_kernel(SDPBackend.MATH))
            if retry:
                kernels.enter_context(torch.backends.cudnn.flags(enabled=False))
            if compiled and hasattr(torch.compiler, "set_stance"):  # since torch 2.6
                kernels.enter_context(torch.compiler.set_stance("force_eager"))
            value = loss(weights)
            compiled = is_compiled(value)
            if compiled:
                continue
            slopes = gradient(value, weights, create_graph=True)
        if differentiable_again(slopes):
            return slopes
    raise RuntimeError(
        "the inner loss goes through a function that cannot be differentiated twice, "
        "such as a fused kernel or a compiled function. Use first_order="
        "True and estimator='guided' or 'evograd', which differentiate once, or "
        "another implementation of that function"
    )
