"""A bilevel problem with unrolled inner steps, the basis of all comparisons.

θ_{t+1} = θ_t − η ∇_θ ℓ(θ_t, λ),  t = 0 .. T−1;  the outer loss is L(θ_T, λ).

:class:`Unrolled` computes L(θ_T(λ), λ) at any λ, the value that a step along an
estimate should lower. The exact dL/dλ is computed in :mod:`l2l_evograd.oracle.exact`.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from l2l_evograd.checks import check_count, check_loss, check_positive
from l2l_evograd.hyperparameters import Hyperparameters, find_hyperparameters
from l2l_evograd.replay.call_state import preserved_random_state
from l2l_evograd.replay.module_copy import copy_structure

Loss = Callable[[nn.Module], Tensor]


class Unrolled:
    """T gradient steps on ℓ, then L.

    All methods leave the model, its buffers, every ``.grad`` and the global random
    state unchanged, and start from the current random state. Two calls in a row
    therefore see the same masks and the same noise.

    Args:
        model: the module; its parameters that require grad and are not λ are θ.
        inner_loss: ℓ, called with a module that stands for the model.
        outer_loss: L, likewise.
        hyperparameters: λ, inside or outside the model.
        lr: η.
        steps: T.

    Raises:
        TypeError: if the model is not a module or a loss cannot be called.
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
                f"put the tensors into a module"
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
        """The devices of the problem's tensors."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return {tensor.device for tensor in [*tensors, *self.hyperparameters]}

    def outer_value(self) -> float:
        """Return L(θ_T(λ), λ) at the current values of λ.

        Cost: T forward and backward passes and one forward pass, first order.
        """
        buffers = self._buffer_copies()
        with preserved_random_state(self.devices):
            weights = [weight.detach() for weight in self.weights]
            for _ in range(self.steps):
                weights = self._step(weights, buffers)
            with torch.no_grad():
                view = self._view(self.weights, weights, buffers)
                loss = check_loss(self.outer_loss(view), "the outer loss", look=False)
                return float(loss)

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
        """Return ∂L/∂λ at fixed ``weights``, or None if L does not use λ directly.

        Args:
            weights: name -> tensor, for the parameters that differ from the model's.
        """
        known = dict(self.model.named_parameters(remove_duplicate=False))
        chosen = {id(tensor) for tensor in self.hyperparameters}
        # λ inside the model must stay the leaf of this derivative.
        names = [name for name in weights if id(known[name]) not in chosen]
        buffers = self._buffer_copies()
        with preserved_random_state(self.devices):
            with torch.no_grad():  # advances the random state, as the inner steps do
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
        """Move λ by ``−distance · direction`` inside a ``with`` block.

        The values of λ are written in place, because losses may hold λ in closures that
        no other code can reach. The values are restored bit for bit, also after an
        exception. An older graph that saved λ cannot be differentiated afterwards.
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
                f"other tensors; pass those other tensors"
            )
    return found
