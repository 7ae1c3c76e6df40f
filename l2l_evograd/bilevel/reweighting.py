"""``reweighting_step``: one training step whose samples a clean batch weights."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from l2l_evograd.bilevel.problem import Loss
from l2l_evograd.bilevel.step import bilevel_step
from l2l_evograd.checks import (
    InputError,
    check_callable,
    check_count,
    check_differentiable,
    check_loss,
    check_module,
)
from l2l_evograd.distributed import Processes
from l2l_evograd.estimators import Estimator

if TYPE_CHECKING:  # some builds of torch lack it
    from torch.distributed import ProcessGroup


class ReweightingStep(NamedTuple):
    """What :func:`reweighting_step` returns.

    Attributes:
        weights: w, the weight of each sample in the step, shape (N,), at least 0. With
            a process group the weights of all processes together add up to 1.
        losses: ℓ_i at the weights θ from before the step, detached, shape (N,).
        outer_loss: L at θ, detached; with a process group the mean.
        hypergradient: dL/dw_i at w = 0, shape (N,).
        skipped: whether something was not finite, so that nothing has moved; then the
            others are NaN. Only with ``nan_policy="skip"``.
    """

    weights: Tensor
    losses: Tensor
    outer_loss: Tensor
    hypergradient: Tensor
    skipped: bool = False


def reweighting_step(
    model: nn.Module,
    sample_losses: Callable[[Any], Tensor],
    outer_loss: Loss,
    base_optimizer: Optimizer,
    num_samples: int,
    *,
    update: str = "gradient",
    estimator: Estimator | str | None = None,
    generator: torch.Generator | None = None,
    process_group: "ProcessGroup | None" = None,
    check: str = "first",
    nan_policy: str = "raise",
) -> ReweightingStep:
    """Weight each sample by how much a step on it lowers the outer loss, and step.

    λ is one weight for each sample of the batch. With the virtual step from w = 0::

        θ' = θ − η Σ_i w_i ∇ℓ_i(θ)                    so θ' = θ, at w = 0
        u_i = dL(θ')/dw_i = −η ∇L(θ)·∇ℓ_i(θ)
        w_i = max(−u_i, 0) / Σ_j max(−u_j, 0)         all 0 if no u_i is negative
        θ ← step of the base optimizer along Σ_i w_i ∇ℓ_i(θ)

    The weights do not depend on η, nor on any other positive factor of the
    hypergradient. So Algorithm 1 and ``EvoGrad`` with the same population give the
    same weights, up to terms of order σ.

    Args:
        model: the base model; its parameters that require grad are θ.
        sample_losses: ℓ_i, called ``sample_losses(view)``, where ``view`` behaves like
            the model; returns the loss of each sample of the batch, shape (N,).
        outer_loss: L, called ``outer_loss(view)``: the mean loss on a clean batch.
        base_optimizer: optimizer of θ.
        num_samples: N, the number of samples of the batch.
        update: as for :func:`~.bilevel_step`.
        estimator: as for :func:`~.bilevel_step`.
        generator: as for :func:`~.bilevel_step`.
        process_group: the processes that make this step together, as for
            :func:`~.bilevel_step`. Each has N samples of its own; the weights are
            normalised over all of them.
        check: as for :func:`~.bilevel_step`.
        nan_policy: as for :func:`~.bilevel_step`.

    Returns:
        :class:`ReweightingStep`. The parameters have the applied gradients in
        ``.grad``.

    Raises:
        InputError: for losses of another shape than (N,) or without gradients, and for
            hypergradients that are not finite.
        TypeError, ValueError: as :func:`~.bilevel_step`.

    Cost:
        ``sample_losses`` is called once. One forward pass of the batch, one backward
        pass for the step, one forward and backward pass of the outer loss, one backward
        pass for the virtual step, and what the estimator costs without backward passes
        through the model: the weights act behind it.

    Source: Ren, Zeng, Yang, Urtasun, "Learning to Reweight Examples for Robust Deep
    Learning", ICML 2018, Algorithm 1.
    """
    num_samples = check_count(num_samples, "num_samples")
    check_module(model)
    check_callable(sample_losses, "sample_losses", "sample_losses(view)")
    processes = Processes(process_group)
    like = next((p for p in model.parameters() if p.requires_grad), torch.empty(0))
    # One row for each process: what another process does not use has a gradient of 0.
    weights = torch.zeros(
        (processes.count, num_samples),
        dtype=like.dtype,
        device=like.device,
        requires_grad=True,
    )
    seen: list[Tensor] = []

    def inner_loss(view: Any) -> Tensor:
        losses = check_differentiable(_checked(sample_losses(view), num_samples))
        seen.append(losses.detach())
        # ℓ is a mean over the processes, and a sum over their samples.
        return processes.count * (weights[processes.rank] * losses).sum()

    found = bilevel_step(
        model,
        inner_loss,
        outer_loss,
        base_optimizer,
        _Rectified([weights], {}),
        lr=1.0,  # any rate gives the same weights
        update=update,
        estimator=estimator,
        generator=generator,
        process_group=process_group,
        check=check,
        nan_policy=nan_policy,
    )
    own = processes.rank
    if found.skipped:
        unknown = torch.full_like(weights[own], math.nan, requires_grad=False)
        return ReweightingStep(unknown, unknown, found.outer_loss, unknown, True)
    return ReweightingStep(
        weights.detach()[own], seen[0], found.outer_loss, found.hypergradient[0][own]
    )


class _Rectified(Optimizer):
    """Replaces weights by their rectified negative gradients, which add up to 1."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Set the weights."""
        for group in self.param_groups:
            for weights in group["params"]:
                useful = (-weights.grad).clamp_min(0)
                total = check_loss(useful.sum(), "the hypergradient of the weights")
                with torch.no_grad():
                    weights.copy_(useful / torch.where(total > 0, total, 1))


def _checked(losses: Any, num_samples: int) -> Tensor:
    if isinstance(losses, Tensor) and losses.shape == (num_samples,):
        return losses
    got = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
    raise InputError(
        f"expected one loss for each of {num_samples} samples, shape ({num_samples},), "
        f"got {got}; compute the losses with reduction='none' and pass their number as "
        f"num_samples"
    )
