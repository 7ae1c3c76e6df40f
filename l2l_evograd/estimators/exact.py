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
        On the graph that the step kept: one backward pass through it. Computed again
        (``memory="recompute"``): one forward pass, one backward pass with graph and one
        backward pass through it, with the memory of one step however many there are.
        Attention then runs on the math kernel, and recurrent layers without cuDNN: the
        kernels that can be differentiated twice.
    """

    exact: ClassVar[bool] = True

    def mixed(self, question: Question) -> list[Tensor]:
        """Return ∂D/∂λ, computed again."""
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
        params: θ. Where gradients are on, the result is on the graph of θ, of v and of
            the inputs of ℓ.
        direction: v.
        wanted: positions of the inputs λ.
        params_too: whether ∂D/∂θ is wanted.
        slopes_before: digest of ∇_θ ℓ as the step took it, to be compared with what
            it is now.

    Raises:
        RuntimeError: if the loss goes through a function that cannot be differentiated
            twice, or does not repeat itself.
    """
    again = torch.is_grad_enabled()  # whether the result is to be differentiated
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
    """Return stand-ins at which partial derivatives end."""
    if on_graph:
        return [t.view_as(t) if t.requires_grad else t for t in tensors]
    return [t.detach().requires_grad_() for t in tensors]
