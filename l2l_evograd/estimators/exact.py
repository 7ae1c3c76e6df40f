"""``Exact``: double backward through one inner step, the reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from l2l_evograd.estimators.base import Estimator, Question, dot
from l2l_evograd.replay.inner_loss import InnerLoss, check_same, digest, gradient


@dataclass(frozen=True)
class Exact(Estimator):
    """Double backward through one inner step, the reference.

    ∂D/∂λ = ∂_λ (v·∇_θ ℓ(θ, λ)), by automatic differentiation.

    Cost:
        If the step kept its graph: one backward pass through that graph. If the step is
        computed again (``memory="recompute"``): one forward pass, one backward pass
        with graph, and one backward pass through that graph. The memory is that of one
        step, whatever the number of steps. Attention runs on the math kernel and
        recurrent layers run without cuDNN, because only these kernels can be
        differentiated twice.
    """

    exact: ClassVar[bool] = True

    def mixed(self, question: Question) -> list[Tensor]:
        """Return ∂D/∂λ by computing the inner loss again."""
        return exact_mixed(
            question.loss, question.params, question.direction, question.wanted
        )[1]


def exact_mixed(
    loss: InnerLoss,
    params: Sequence[Tensor],
    direction: Sequence[Tensor],
    wanted: Sequence[int],
    params_too: bool = False,
    slopes_before: Tensor | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return ∂D/∂θ (or an empty list) and ∂D/∂λ by double backward.

    Args:
        loss: ℓ.
        params: θ. If gradients are enabled, the result is on the autograd graph of θ,
            of v and of the inputs of ℓ.
        direction: v.
        wanted: positions of λ among the inputs of ℓ.
        params_too: whether ∂D/∂θ is wanted.
        slopes_before: digest of the ∇_θ ℓ that the inner step used. It is compared with
            the digest of the ∇_θ ℓ that is computed here.

    Raises:
        RuntimeError: if the loss uses a function that cannot be differentiated twice,
            or if the repeated loss has a different gradient.
    """
    again = torch.is_grad_enabled()  # whether the result must be differentiable
    weights = _cut(params, again)
    if again:
        loss = loss.at(_cut(loss.inputs, again))
    slopes = loss.slopes(weights)
    if slopes_before is not None:
        check_same("its gradient", [slopes_before], [digest(slopes)])
    with torch.enable_grad():
        derivative = dot(direction, slopes)
    leaves = [loss.leaves[position] for position in wanted]
    targets = [*(weights if params_too else []), *leaves]
    found = gradient(derivative, targets, create_graph=again)
    split = len(weights) if params_too else 0
    return found[:split], found[split:]


def _cut(tensors: Sequence[Tensor], on_graph: bool) -> list[Tensor]:
    """Return tensors of equal value at which partial derivatives stop."""
    if on_graph:
        return [t.view_as(t) if t.requires_grad else t for t in tensors]
    return [t.detach().requires_grad_() for t in tensors]
