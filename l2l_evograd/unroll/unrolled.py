"""``unrolled_sgd``: plain autograd through a training run, kept in memory."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from l2l_evograd.bilevel.problem import Loss
from l2l_evograd.hyperparameters import Hyperparameters
from l2l_evograd.undo import or_nothing
from l2l_evograd.unroll.groups import GroupNames
from l2l_evograd.unroll.initial import Init
from l2l_evograd.unroll.losses import Losses
from l2l_evograd.unroll.preparation import prepare
from l2l_evograd.unroll.result import RunGradients, finished


@or_nothing
def unrolled_sgd(
    inner_loss: Loss | Losses,
    outer_loss: Loss,
    params: Mapping[str, Tensor] | nn.Module,
    hyperparameters: Hyperparameters | Mapping[str, Tensor] | None = None,
    *,
    lr: float | Tensor,
    momentum: float | Tensor = 0.0,
    weight_decay: float | Tensor = 0.0,
    steps: int,
    init: Init | None = None,
    groups: GroupNames | None = None,
    clip: float | None = None,
    dampening: bool = False,
    allow_unused: bool = False,
) -> RunGradients:
    """Return dL(θ_T)/dλ through a run of SGD with momentum, by plain autograd.

    The run is PyTorch's SGD without dampening, from v_0 = 0, for t = 1 .. T:

        g = ∇ℓ_t(θ),  v ← β v + g + ξ θ,  θ ← θ − α v.

    Everything that is given as a tensor is differentiated: α (``lr``), β
    (``momentum``), ξ (``weight_decay``), λ inside the losses (``hyperparameters``),
    and the scale of the initial weights (``init``). The module, its buffers, every
    ``.grad`` and all tensors given stay unchanged.

    Args:
        inner_loss: ℓ: one function for all steps, or a sequence with one for each
            step, for example ``[partial(loss, batch=b) for b in batches]``. An object
            with a length and ``[step]`` will do, so that batches can be made when they
            are needed. With a dict of weights each is called
            ``loss(params, hyperparameters)``, with a module ``loss(view)``, where
            ``view`` behaves like the module.
        outer_loss: L, called in the same way at the weights after the run.
        params: θ as a dict of tensors, or a module. The parameters of a module that
            require grad and are not λ are θ.
        hyperparameters: λ, as for :func:`~l2l_evograd.hypergradient`. None: the losses
            of a dict of weights are called ``loss(params, None)``.
        lr: α, at least 0. A number is fixed. A tensor is differentiated: of no
            dimension for one value; of shape (N,) for N windows; of shape (N, groups).
            The value at step t, counted from 0, is number ⌊t N / T⌋, N at most T. The
            gradient of a window is the sum over its steps.
        momentum: β, from 0 to 1, likewise.
        weight_decay: ξ, at least 0, likewise.
        steps: T.
        init: ``{"scale": s}``: the run starts at e^s times ``params``, and s, a tensor
            of no dimension or of shape (groups,), is differentiated.
        groups: for each group a name or a list of names, of weights or of submodules;
            each weight must be in exactly one group.
        clip: c: every entry of g is clamped to [−c, c], and entries that are clamped
            pass no derivative on. None: no clipping.
        dampening: v ← β v + (1 − β) (g + ξ θ), as in the paper, at every step.
        allow_unused: return 0 for λ that no inner loss uses, and give weights that an
            inner loss does not use a gradient of 0.

    Returns:
        :class:`~l2l_evograd.unroll.RunGradients`. The global random state is the same
        as after one ordinary call of each loss.

    Raises:
        TypeError, ValueError: if a loss is not a finite scalar tensor (names the step),
            if one of λ is among the weights or is not used, if a setting is out of
            range, or if there is nothing to differentiate.
        RuntimeError: if the inner loss cannot be differentiated twice.

    Warns:
        UserWarning: if the second derivatives of an inner loss are not symmetric, so
            that a hypergradient may be wrong; if a loss sets an attribute of the module
            that the next step does not see.

    Cost:
        For each step one forward and one backward pass with graph, and one backward
        pass through both at the end. At about 8 steps of the run two or three backward
        passes more, which look whether second derivatives are symmetric. Memory: all T
        steps at once.

    Source: Maclaurin, Duvenaud, Adams, ICML 2015, Algorithm 1, in PyTorch's convention.
    """
    prepared = prepare(
        inner_loss,
        outer_loss,
        params,
        hyperparameters,
        {"lr": lr, "momentum": momentum, "weight_decay": weight_decay},
        steps,
        init,
        groups,
        allow_unused,
        clip,
        dampening,
    )
    run, initial, schedule = prepared.run, prepared.initial, prepared.schedule
    learned = prepared.learned
    with torch.enable_grad():
        leaves = {name: windows.leaf() for name, windows in schedule.items()}
        scale = initial.leaf()
        weights = [w.requires_grad_() for w in initial.weights(scale)]
        velocity = [torch.zeros_like(weight) for weight in weights]
        for step in range(steps):
            slopes = run.slopes(step, weights)
            alpha, beta, xi = (
                schedule[name].of_leaf(leaf, step) for name, leaf in leaves.items()
            )
            pushes = [g + x * w for g, x, w in zip(slopes, xi, weights, strict=True)]
            if dampening:
                pushes = [(1 - b) * p for b, p in zip(beta, pushes, strict=True)]
            velocity = [
                b * v + p for b, v, p in zip(beta, velocity, pushes, strict=True)
            ]
            weights = [
                # A float64 rate would widen float32 weights of no dimension.
                (w - a * v).to(w.dtype)
                for a, w, v in zip(alpha, weights, velocity, strict=True)
            ]
        outer = run.outer(weights)
        wanted = [leaves[name] for name in learned]
        if scale is not None:
            wanted.append(scale)
        found, gradients = run.outer_slopes(outer, wanted)
    sums = {
        name: windows.shaped(grad)
        for (name, windows), grad in zip(learned.items(), found, strict=False)
    }
    last = None if scale is None else found[-1]
    return finished(run, weights, outer, gradients, sums, initial, last)
