"""Exact hypergradients: autograd through unrolled inner steps, in three ways.

:func:`through_higher` and :func:`by_double_backward` return dL(θ_T, λ)/dλ for gradient
steps. :func:`through_evolution` returns it for Algorithm 1 at given perturbations. None
of them uses an estimator or a recorded loss of this package.
"""

import contextlib
import importlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from l2l_evograd.checks import check_loss
from l2l_evograd.estimators import EvoGrad
from l2l_evograd.hyperparameters import Hyperparameters, name_of
from l2l_evograd.oracle.unrolled import Loss, Unrolled
from l2l_evograd.replay.call_state import preserved_random_state
from l2l_evograd.replay.module_copy import copy_structure
from l2l_evograd.replay.wrong_derivatives import (
    RightTwice,
    normalises_weights,
    warn_of_wrong_derivatives,
)


def exact_hypergradient(
    model: nn.Module,
    inner_loss: Loss,
    outer_loss: Loss,
    hyperparameters: Hyperparameters,
    lr: float,
    steps: int = 1,
    allow_unused: bool = False,
) -> list[Tensor]:
    """Return dL(θ_T, λ)/dλ with θ_{t+1} = θ_t − η ∇_θ ℓ(θ_t, λ), exactly.

    The result includes the direct dependence of L on λ. The model, its buffers, every
    ``.grad`` and the global random state are unchanged. The losses start from the
    current random state, so that a second call gives the same answer.

    Args:
        model: the module; its parameters that require grad and are not λ are θ.
        inner_loss: ℓ, a function from a module that stands for the model to a scalar.
        outer_loss: L, likewise.
        hyperparameters: λ: a tensor, a module, a parameter's name in the model, or
            several of these in a list or dictionary; inside or outside the model.
        lr: η.
        steps: T.
        allow_unused: give zeros for a hyperparameter that the result does not depend
            on, instead of an error.

    Returns:
        The derivatives, one tensor for each of λ, of its shape.

    Raises:
        ImportError: if ``higher`` is not installed.
        TypeError: if the model is not a module, or a loss cannot be called.
        ValueError: for hyperparameters that are not found, not used, do not require
            grad or are not leaves; for losses that are not finite scalars; for an inner
            loss that does not use the module it is given; for a learning rate that is
            not positive and finite, or fewer than one step.

    Cost:
        T second-order steps held in memory at once. Attention runs on the math kernel
        and recurrent layers without cuDNN: other kernels have no second derivative.

    Source: Grefenstette et al., "Generalized inner loop meta-learning", 2019
    (``higher``); Franceschi et al., ICML 2017, for reverse-mode hypergradients.
    """
    problem = Unrolled(model, inner_loss, outer_loss, hyperparameters, lr, steps)
    return through_higher(problem, allow_unused)


def through_higher(problem: Unrolled, allow_unused: bool = False) -> list[Tensor]:
    """Return dL(θ_T(λ), λ)/dλ by automatic differentiation, through ``higher``.

    Args:
        problem: the losses and the steps.
        allow_unused: whether a hyperparameter that neither loss depends on gets zeros,
            instead of an error.

    Raises:
        ImportError: without ``higher``.
        ValueError: if a loss is not a finite scalar, the inner loss does not depend on
            the module that it is given, or a hyperparameter is not used.

    Cost: T forward and backward passes with graph and a backward pass through them;
    memory grows with T.
    """
    higher = import_higher()
    model = problem.model
    optimizer = torch.optim.SGD(problem.weights, lr=problem.lr)
    with (
        _exactly(problem),
        higher.innerloop_ctx(model, optimizer, copy_initial_weights=False) as (
            view,
            stepper,
        ),
    ):
        for _ in range(problem.steps):
            loss = _inner(problem, view)
            stepper.step(loss, grad_callback=_checked)
            _renew_buffers(view)
        return _gradient(problem, view, allow_unused)


def by_double_backward(problem: Unrolled, allow_unused: bool = False) -> list[Tensor]:
    """Return dL(θ_T(λ), λ)/dλ with torch alone; see :func:`through_higher`."""
    with _exactly(problem):
        weights = [weight.detach().requires_grad_() for weight in problem.weights]
        view = _successor(problem.model, problem.weights, weights)
        for _ in range(problem.steps):
            loss = _inner(problem, view)
            grads = _checked(
                torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
            )
            moved = [
                weight if grad is None else weight - problem.lr * grad
                for weight, grad in zip(weights, grads, strict=True)
            ]
            view, weights = _successor(view, weights, moved), moved
        return _gradient(problem, view, allow_unused)


def through_evolution(
    problem: Unrolled,
    estimator: EvoGrad,
    seeds: Sequence[int],
    allow_unused: bool = False,
) -> list[Tensor]:
    """Return dL(θ_T(λ), λ)/dλ where each step is Algorithm 1, by autograd.

    θ_{t+1} = θ_t + Σ_k w_k ε_k, w = softmax(−ℓ(θ_t + ε_k, λ)/τ), which is Σ_k w_k θ_k.
    All candidates of a step see the same random numbers. The next step starts from the
    buffers after an ordinary call at θ_t.

    Args:
        problem: the losses and the number of steps; its ``lr`` is not used.
        estimator: K, σ, τ and the kind of noise.
        seeds: seeds of the perturbations, one for each step.
        allow_unused: as in :func:`through_higher`.

    Cost: T·K forward passes with graph, held in memory at once, and a backward pass.
    """
    with _exactly(problem):
        weights = [weight.detach().requires_grad_() for weight in problem.weights]
        view = _successor(problem.model, problem.weights, weights)
        for seed in seeds:
            noise = estimator.perturbations([w.detach() for w in weights], seed)
            parts = [noise.draw(k) for k in range(noise.count)]
            losses = []
            for part in parts:
                candidate = list(torch._foreach_add(weights, part))
                with preserved_random_state(problem.devices):
                    loss = _inner(problem, _successor(view, weights, candidate))
                losses.append(loss.reshape(()))
            with torch.no_grad():
                problem.inner_loss(view)
            shares = torch.softmax(-torch.stack(losses) / estimator.temperature, dim=0)
            moved = [
                sum((shares[k].to(e) * e for k, e in enumerate(column)), start=weight)
                for weight, column in zip(
                    weights, zip(*parts, strict=True), strict=True
                )
            ]
            view, weights = _successor(view, weights, moved), moved
        return _gradient(problem, view, allow_unused)


@contextlib.contextmanager
def _exactly(problem: Unrolled) -> Iterator[None]:
    with (
        preserved_random_state(problem.devices),
        torch.enable_grad(),
        twice_differentiable(problem.model),
        RightTwice() if normalises_weights(problem.model) else nullcontext(),
    ):
        yield


@contextlib.contextmanager
def twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Use kernels that have a second derivative while the block runs.

    Fused attention has no second derivative, on any device. Recurrent layers have none
    in cuDNN.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(child, nn.RNNBase) for child in model.modules()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


def import_higher() -> Any:
    """Return the module ``higher``.

    Raises:
        ImportError: if it is not installed; names the extra to install.
    """
    try:
        with warnings.catch_warnings():
            # higher 0.2.1 has "is 1" and "\\ " in its source. Python warns about them
            # when it compiles the files; the category depends on the Python release.
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module("higher")
    except ImportError as error:
        raise ImportError(
            "exact hypergradients for comparison are computed with higher, which is "
            "not installed; pip install 'l2l-evograd[oracle]'"
        ) from error


def _successor(
    view: nn.Module, old: Sequence[Tensor], new: Sequence[Tensor]
) -> nn.Module:
    """Return the view with new weights and copies of its buffers."""
    exchanged = {id(a): b for a, b in zip(old, new, strict=True)}
    buffers = {id(buffer): buffer.clone() for buffer in view.buffers()}
    return copy_structure(view, {**buffers, **exchanged})


def _renew_buffers(view: nn.Module) -> None:
    """Give the view copies of its buffers.

    Batch normalisation in eval mode saves its running statistics for the backward
    pass. In training mode it writes to them, and autograd does not notice. The next
    loss must therefore not write to statistics that an earlier loss saved.
    """
    for child in view.modules():
        for name, buffer in child._buffers.items():
            if buffer is not None:
                child._buffers[name] = buffer.clone()


def _inner(problem: Unrolled, view: nn.Module) -> Tensor:
    loss = check_loss(problem.inner_loss(view), "the inner loss")
    if not loss.requires_grad:
        raise ValueError(_INDEPENDENT)
    warn_of_wrong_derivatives([loss])
    return loss


def _checked(grads: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    if all(grad is None for grad in grads):
        raise ValueError(_INDEPENDENT)
    return grads


def _gradient(problem: Unrolled, view: nn.Module, allow_unused: bool) -> list[Tensor]:
    """Return ∂/∂λ of the outer loss of the view."""
    outer = check_loss(problem.outer_loss(view), "the outer loss")
    hyperparameters = problem.hyperparameters
    found: Sequence[Tensor | None] = [None] * len(hyperparameters)
    if outer.requires_grad:
        found = torch.autograd.grad(outer, hyperparameters, allow_unused=True)
    pairs = list(zip(found, hyperparameters, strict=True))
    unused = [
        name_of(tensor, problem.model, position)
        for position, (grad, tensor) in enumerate(pairs)
        if grad is None
    ]
    if unused and not allow_unused:
        raise ValueError(
            f"the outer loss after the inner steps does not depend on "
            f"{', '.join(unused)}; check that the losses use what they are given, "
            f"or pass allow_unused=True to get zeros"
        )
    return [
        torch.zeros_like(tensor) if grad is None else grad for grad, tensor in pairs
    ]


_INDEPENDENT = (
    "the inner loss does not depend on the module that it is given; compute it from "
    "the function's argument, not from the model around it"
)
