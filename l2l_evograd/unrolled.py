"""A bilevel problem with its inner steps written out, the ground for comparisons.

θ_{t+1} = θ_t − η ∇_θ ℓ(θ_t, λ),  t = 0 .. T−1;  the outer loss is L(θ_T, λ).

:class:`Unrolled` has the exact dL/dλ, through ``higher`` and thus through nothing that
this package computes, and L(θ_T(λ), λ) itself at any λ, which is what an estimate is in
the end good for.
"""

import contextlib
import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from l2l_evograd.estimators import check_positive
from l2l_evograd.functional import copy_structure, preserved_random_state
from l2l_evograd.hyperparameters import (
    Hyperparameters,
    find_hyperparameters,
    name_of,
)
from l2l_evograd.losses import check_loss

Loss = Callable[[nn.Module], Tensor]


class Unrolled:
    """T gradient steps on ℓ, then L.

    All methods leave the model, its buffers, every ``.grad`` and the global random
    state as they were, and start from the random state that they find: two calls in a
    row see the same masks and the same noise.

    Args:
        model: the module; its parameters that require grad and are not λ are θ.
        inner_loss: ℓ, called with a module that stands for the model.
        outer_loss: L, likewise.
        hyperparameters: λ, inside or outside the model.
        lr: η.
        steps: T.

    Raises:
        TypeError: if the model is no module or a loss cannot be called.
        ValueError: for hyperparameters that cannot be found, do not require grad or are
            themselves computed from others; for a model without other parameters; for
            an ``lr`` that is not positive and finite; for ``steps`` below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        inner_loss: Loss,
        outer_loss: Loss,
        hyperparameters: Hyperparameters,
        lr: float,
        steps: int = 1,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"expected model to be a torch.nn.Module, got {type(model).__name__}; "
                f"put tensors into a module of their own"
            )
        for name, loss in (("inner_loss", inner_loss), ("outer_loss", outer_loss)):
            if not callable(loss):
                raise TypeError(
                    f"expected {name} to be a function of the model, got "
                    f"{type(loss).__name__}; write lambda model: ..."
                )
        self.model = model
        self.inner_loss = inner_loss
        self.outer_loss = outer_loss
        self.hyperparameters = _leaves(hyperparameters, model)
        self.lr = check_positive(lr, "lr")
        self.steps = check_count(steps, "steps")
        chosen = {id(tensor) for tensor in self.hyperparameters}
        self.weights = [
            p for p in model.parameters() if p.requires_grad and id(p) not in chosen
        ]
        if not self.weights:
            raise ValueError(
                "expected a model with parameters that require grad and are not "
                "hyperparameters, got none; the inner step has nothing to move"
            )

    @property
    def devices(self) -> set[torch.device]:
        """Where the tensors of the problem live."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return {tensor.device for tensor in [*tensors, *self.hyperparameters]}

    def hypergradient(self, allow_unused: bool = False) -> list[Tensor]:
        """Return dL(θ_T(λ), λ)/dλ by automatic differentiation, through ``higher``.

        Args:
            allow_unused: whether a hyperparameter that neither loss depends on gets
                zeros, instead of an error.

        Raises:
            ImportError: without ``higher``.
            ValueError: if a loss is not a finite scalar, the inner loss does not depend
                on the module that it is given, or a hyperparameter is not used.

        Cost: T forward and backward passes with graph and a backward pass through them;
        memory grows with T.
        """
        higher = import_higher()
        optimizer = torch.optim.SGD(self.weights, lr=self.lr)
        with (
            preserved_random_state(self.devices),
            torch.enable_grad(),
            twice_differentiable(self.model),
            higher.innerloop_ctx(self.model, optimizer, copy_initial_weights=False) as (
                view,
                stepper,
            ),
        ):
            for _ in range(self.steps):
                loss = check_loss(self.inner_loss(view), "the inner loss")
                _check_depends(loss)
                stepper.step(loss, grad_callback=_checked)
                _renew_buffers(view)
            outer = check_loss(self.outer_loss(view), "the outer loss")
            return self._gradient(outer, allow_unused)

    def _gradient(self, outer: Tensor, allow_unused: bool) -> list[Tensor]:
        found: Sequence[Tensor | None] = [None] * len(self.hyperparameters)
        if outer.requires_grad:
            found = torch.autograd.grad(outer, self.hyperparameters, allow_unused=True)
        pairs = list(zip(found, self.hyperparameters, strict=True))
        unused = [
            name_of(tensor, self.model, position)
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

    def outer_value(self) -> float:
        """Return L(θ_T(λ), λ) at the present values of λ.

        Cost: T forward and backward passes and one forward pass, first order.
        """
        buffers = self._buffer_copies()
        with preserved_random_state(self.devices):
            weights = [weight.detach() for weight in self.weights]
            for _ in range(self.steps):
                weights = self._step(weights, buffers)
            with torch.no_grad():
                view = self._view(self.weights, weights, buffers)
                return float(self.outer_loss(view))

    def _step(
        self, weights: Sequence[Tensor], buffers: dict[int, Tensor]
    ) -> list[Tensor]:
        leaves = [weight.detach().requires_grad_() for weight in weights]
        with torch.enable_grad():
            loss = self.inner_loss(self._view(self.weights, leaves, buffers))
            grads = torch.autograd.grad(loss, leaves, allow_unused=True)
        return [
            leaf.detach() if grad is None else leaf.detach() - self.lr * grad
            for leaf, grad in zip(leaves, grads, strict=True)
        ]

    def direct_term(self, weights: Mapping[str, Tensor]) -> list[Tensor] | None:
        """Return ∂L/∂λ at fixed ``weights``, or None if L does not use λ itself.

        Args:
            weights: name -> tensor, for the parameters that differ from the model's.
        """
        known = dict(self.model.named_parameters(remove_duplicate=False))
        chosen = {id(tensor) for tensor in self.hyperparameters}
        # λ inside the model stays the leaf that is differentiated with respect to.
        names = [name for name in weights if id(known[name]) not in chosen]
        buffers = self._buffer_copies()
        with preserved_random_state(self.devices):
            with torch.no_grad():  # moves on the random state, as the inner step does
                for _ in range(self.steps):
                    self.inner_loss(self._view([], [], buffers))
            old = [known[name] for name in names]
            new = [weights[name].detach() for name in names]
            with torch.enable_grad():
                outer = self.outer_loss(self._view(old, new, buffers))
            if not outer.requires_grad:
                return None
            grads = torch.autograd.grad(outer, self.hyperparameters, allow_unused=True)
        if all(grad is None for grad in grads):
            return None
        return [
            torch.zeros_like(tensor) if grad is None else grad
            for grad, tensor in zip(grads, self.hyperparameters, strict=True)
        ]

    @contextlib.contextmanager
    def moved(self, direction: Sequence[Tensor], distance: float) -> Iterator[None]:
        """Move λ by ``−distance · direction`` for the time of a ``with`` block.

        Losses may hold λ in closures that nothing else can reach, so the values are
        written in place. They are put back bit for bit, also after an exception. A
        graph that was recorded before and saved λ cannot be differentiated afterwards.
        """
        before = [tensor.detach().clone() for tensor in self.hyperparameters]
        try:
            with torch.no_grad():
                for tensor, part in zip(self.hyperparameters, direction, strict=True):
                    tensor.sub_(part.to(tensor), alpha=distance)
            yield
        finally:
            with torch.no_grad():
                for tensor, value in zip(self.hyperparameters, before, strict=True):
                    tensor.copy_(value)

    def _buffer_copies(self) -> dict[int, Tensor]:
        return {id(buffer): buffer.clone() for buffer in self.model.buffers()}

    def _view(
        self, old: Sequence[Tensor], new: Sequence[Tensor], buffers: dict[int, Tensor]
    ) -> nn.Module:
        exchanged = {id(a): b for a, b in zip(old, new, strict=True)}
        return copy_structure(self.model, {**buffers, **exchanged})


@contextlib.contextmanager
def twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Use kernels that have a second derivative while the block runs.

    Fused attention has none, on any device; of the recurrent layers it is cuDNN's that
    have none.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(child, nn.RNNBase) for child in model.modules()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


def _renew_buffers(view: nn.Module) -> None:
    """Give the view copies of its buffers.

    Batch normalisation in eval mode saves its running statistics for the backward
    pass, and in training mode writes to them without autograd noticing. Statistics
    that one loss saved must not be the ones that the next writes to.
    """
    for child in view.modules():
        for name, buffer in child._buffers.items():
            if buffer is not None:
                child._buffers[name] = buffer.clone()


def import_higher() -> Any:
    """Return the module ``higher``.

    Raises:
        ImportError: naming the extra that brings it.
    """
    try:
        with warnings.catch_warnings():
            # higher 0.2.1 has "is 1" and "\\ " in its source, which Python warns of
            # when it compiles the files, each release under another category.
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module("higher")
    except ImportError as error:
        raise ImportError(
            "exact hypergradients for comparison are computed with higher, which is "
            "not installed; pip install 'l2l-evograd[oracle]'"
        ) from error


def check_count(value: object, name: str) -> int:
    """Return ``value`` if it is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(
            f"expected {name} to be a whole number of at least 1, got {value!r}"
        )
    return value


def _leaves(hyperparameters: Hyperparameters, model: nn.Module) -> list[Tensor]:
    if hyperparameters is None:
        raise TypeError(
            "expected hyperparameters to be tensors, modules or names, got None"
        )
    found = find_hyperparameters(hyperparameters, model)
    for position, tensor in enumerate(found):
        if not tensor.is_leaf:
            raise ValueError(
                f"expected hyperparameters that are leaves, got one of shape "
                f"{tuple(tensor.shape)} at position {position} that was computed from "
                f"others; name those others"
            )
    return found


def _check_depends(loss: Tensor) -> None:
    if not loss.requires_grad:
        raise ValueError(_INDEPENDENT)


def _checked(grads: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    if all(grad is None for grad in grads):
        raise ValueError(_INDEPENDENT)
    return grads


_INDEPENDENT = (
    "the inner loss does not depend on the module that it is given; compute it from "
    "the function's argument, not from the model around it"
)
