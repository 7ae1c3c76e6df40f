"""Bilevel problems whose weights are in a dict or in a module.

Both classes have the same interface: they evaluate a loss at the current weights,
recorded or not, and return tensors in the structure in which λ was given.
"""

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from l2l_evograd.finite import has_fractions
from l2l_evograd.hyperparameters import (
    Hyperparameters,
    adapted_names,
    find_hyperparameters,
    name_of,
)
from l2l_evograd.replay.call_state import TwiceDifferentiable
from l2l_evograd.replay.inner_loss import or_zeros
from l2l_evograd.replay.module_copy import copy_structure
from l2l_evograd.replay.tensor import Recording
from l2l_evograd.replay.wrong_derivatives import RightTwice, normalises_weights

Loss = Callable[..., Tensor]

_PLAIN = (bool, int, float, str, Tensor)


class ModuleProblem:
    """A problem with θ in a module; the losses get a copy that behaves like the module.

    Args:
        model: the module; it is not changed.
        hyperparameters: λ.
        own_buffers: whether inner losses write to copies of the module's buffers (True)
            or to the module's own buffers (False). Outer losses write to neither.

    Attributes:
        values: the current θ.
        weight_names: the names of θ.
        hyperparameters: λ, as the tensors whose gradients are computed.
        names: the names of λ, for error messages.
        escaped: whether a value that depends on λ has left the autograd graph of the
            last inner loss, for example as a Python number.
        model: the module.
        identity: hashable key that distinguishes this problem from others with the
            same module.
    """

    def __init__(
        self,
        model: nn.Module,
        hyperparameters: Hyperparameters,
        own_buffers: bool = True,
    ) -> None:
        self._given = hyperparameters
        self.hyperparameters = find_hyperparameters(hyperparameters, model)
        self.names = [name_of(t, model, i) for i, t in enumerate(self.hyperparameters)]
        self.weight_names = adapted_names(model, self.hyperparameters)
        parameters = dict(model.named_parameters())
        self._own = [parameters[name] for name in self.weight_names]
        self.values = [p.detach().requires_grad_() for p in self._own]
        self.model = model
        self.escaped = False
        self._handed_on: list[str] | None = None
        # Not the identity of λ: a loop may make λ anew in every step.
        self.identity = tuple(t.shape for t in self.hyperparameters)
        self._own_buffers = own_buffers
        self._recurrent = any(isinstance(m, nn.RNNBase) for m in model.modules())
        self._normalises_weights = normalises_weights(model)
        self._buffers = {
            id(b): b.detach().clone() if own_buffers else b for b in model.buffers()
        }

    def inner(
        self, loss: Loss, record: bool, twice: bool, mark: bool = False
    ) -> Tensor:
        """Return an inner loss at the current weights.

        Args:
            loss: the inner loss; it is called once.
            record: whether to record the calls, so that it can be computed again.
            twice: whether it will be differentiated twice.
            mark: whether to keep the tensors that the part after λ is computed from.
        """
        if (twice or record) and self._own_buffers:
            # Earlier steps are still to be differentiated or computed again, with the
            # buffers as they were. This step writes to copies.
            self._buffers = self.buffers()
        marked = self.hyperparameters if mark else ()
        with contextlib.ExitStack() as stack:
            if twice:
                stack.enter_context(TwiceDifferentiable(self._recurrent))
                if self._normalises_weights:
                    stack.enter_context(RightTwice())
            if record:
                recording = Recording(self._buffers.values(), marked)
                stack.enter_context(recording)
            value = self._called(loss, self._buffers)
        self.escaped = record and recording.escaped
        return value

    def outer(self, loss: Loss) -> Tensor:
        """Return the outer loss at the current weights."""
        return loss(self._view(self.buffers()))

    def warn_of_lost_state(self) -> None:
        """Warn if the first inner loss set attributes that the next one does not see.

        Each loss gets a copy of the module as it was. Of what a loss changes, the next
        one gets the buffers only.
        """
        if self._handed_on:
            warnings.warn(
                f"the inner loss set {', '.join(self._handed_on)}, and the next step "
                f"begins with the module as it was: if a step reads what an earlier "
                f"one has set, make it a buffer (register_buffer), which is handed on",
                stacklevel=3,
            )

    def buffers(self) -> dict[int, Tensor]:
        """Return copies of the current buffers, to start from them again."""
        return {key: b.detach().clone() for key, b in self._buffers.items()}

    def inner_from(self, loss: Loss, buffers: dict[int, Tensor]) -> Tensor:
        """Return an inner loss at the current weights, starting from ``buffers``.

        The loss writes to ``buffers``, and one that it replaces is exchanged in them.
        """
        return self._called(loss, buffers)

    def structured(self, tensors: list[Tensor]) -> Any:
        """Return one tensor for each of λ in the structure in which λ was given."""
        return structured_as(self._given, tensors)

    def _called(self, loss: Loss, buffers: dict[int, Tensor]) -> Tensor:
        view = self._view(buffers)
        value = loss(view)
        copies = dict(view.named_modules())
        if self._handed_on is None:
            self._handed_on = _handed_on(self.model, copies)
        for name, child in self.model.named_modules():
            now = copies[name]._buffers if name in copies else {}
            for key, buffer in child._buffers.items():
                new = now.get(key)
                if buffer is None or new is None or new is buffers[id(buffer)]:
                    continue
                # The loss did not write to it: it put another in its place.
                buffers[id(buffer)] = new.detach()
                if not self._own_buffers and buffers is self._buffers:
                    buffer.copy_(new.detach())
        return value

    def _view(self, buffers: dict[int, Tensor]) -> nn.Module:
        # Each loss gets its own copy. Code that runs later, such as an activation
        # checkpoint, then still sees the weights that the loss was computed with.
        weights = zip(self._own, self.values, strict=True)
        return copy_structure(self.model, {**buffers, **{id(p): v for p, v in weights}})


def _handed_on(model: nn.Module, copies: Mapping[str, nn.Module]) -> list[str]:
    """Return the attributes of plain values that copies of submodules have anew."""
    found = []
    for name, child in model.named_modules():
        before = vars(child)
        for key, value in vars(copies.get(name, child)).items():
            if not isinstance(value, _PLAIN) or key == "training":
                continue
            # The old weight normalisation and others compute a weight in every call.
            sources = f"{key}_g", f"{key}_orig"
            computed = any(source in child._parameters for source in sources)
            old = before.get(key)
            same = value is old or (
                not isinstance(value, Tensor)
                and type(value) is type(old)
                and value == old
            )
            if not (same or computed):
                found.append(f"{name}.{key}" if name else key)
    return found


class DictProblem:
    """A problem with θ in a dict; the losses are functions of θ and λ.

    The losses manage all other state themselves.

    Attributes: as :class:`ModuleProblem`; there is no module.
    """

    def __init__(self, params: Mapping[str, Tensor], hyperparameters: Any) -> None:
        if not isinstance(params, Mapping) or not params:
            raise TypeError(
                f"expected params to be a dict of tensors or a module, got "
                f"{type(params).__name__}; use dict(model.named_parameters())"
            )
        for name, value in params.items():
            if not isinstance(value, Tensor) or not has_fractions(value):
                kind = getattr(value, "dtype", type(value).__name__)
                raise TypeError(
                    f"expected params to hold tensors in floating point, got {kind} "
                    f"for {name!r}"
                )
        self._given = hyperparameters
        self.model = None
        self.weight_names = list(params)
        self.values = [p.detach().requires_grad_() for p in params.values()]
        originals = tensors_of(hyperparameters)
        shared = {t.data_ptr() for t in params.values() if t.numel()}
        for position, tensor in enumerate(originals):
            if tensor.numel() and tensor.data_ptr() in shared:
                raise ValueError(
                    f"hyperparameter {position} {tuple(tensor.shape)} is among the "
                    f"weights as well: expected each tensor to be adapted or a "
                    f"hyperparameter, not both; take it out of params"
                )
        self.hyperparameters = [t.detach().requires_grad_() for t in originals]
        self.names = [f"hyperparameter {i}" for i in range(len(originals))]
        self.identity = tuple(self.weight_names), tuple(t.shape for t in self.values)

    def inner(
        self, loss: Loss, record: bool, twice: bool, mark: bool = False
    ) -> Tensor:
        """Return an inner loss at the current weights."""
        with contextlib.ExitStack() as stack:
            if twice:
                stack.enter_context(TwiceDifferentiable(recurrent=False))
                stack.enter_context(RightTwice())
            if record:
                marked = self.hyperparameters if mark else ()
                stack.enter_context(Recording((), marked))
            return self.outer(loss)

    def warn_of_lost_state(self) -> None:
        """Do nothing: functions keep their own state."""

    def outer(self, loss: Loss) -> Tensor:
        """Return a loss at the current weights."""
        named = dict(zip(self.weight_names, self.values, strict=True))
        return loss(named, self.structured(list(self.hyperparameters)))

    def structured(self, tensors: list[Tensor]) -> Any:
        """Return one tensor for each of λ in the structure in which λ was given."""
        return structured_as(self._given, tensors)


def structured_as(given: object, tensors: list[Tensor]) -> Any:
    """Return ``tensors`` as a tensor, a dict or a list, whichever ``given`` is."""
    if isinstance(given, Tensor):
        return tensors[0]
    if isinstance(given, Mapping) and len(given) == len(tensors):
        return dict(zip(given, tensors, strict=True))
    return tensors


def tensors_of(hyperparameters: object) -> list[Tensor]:
    """Return λ as a list of tensors.

    Raises:
        TypeError: if an item is not a tensor.
        ValueError: if there are no hyperparameters.
    """
    if isinstance(hyperparameters, Tensor):
        found: list[Any] = [hyperparameters]
    elif isinstance(hyperparameters, Mapping):
        found = list(hyperparameters.values())
    elif isinstance(hyperparameters, Sequence) and not isinstance(hyperparameters, str):
        found = list(hyperparameters)
    else:
        raise TypeError(
            f"expected hyperparameters to be a tensor, a sequence or a dict of "
            f"tensors, got {type(hyperparameters).__name__}"
        )
    for item in found:
        if not isinstance(item, Tensor) or not has_fractions(item):
            kind = item.dtype if isinstance(item, Tensor) else type(item).__name__
            raise TypeError(
                f"expected every hyperparameter to be a tensor, got {kind}; its values "
                f"must be in floating point"
            )
    if not found:
        raise ValueError("expected at least one hyperparameter, got none")
    return found


def outer_gradient(
    outer: Tensor, hyperparameters: Sequence[Tensor], allow_unused: bool
) -> list[Tensor]:
    """Return dL/dλ, zeros for those of λ that L does not depend on.

    Args:
        outer: L.
        hyperparameters: λ.
        allow_unused: accept an L that depends on none of λ.

    Raises:
        ValueError: for an L that depends on none of λ, neither through the weights
            after the step nor by itself. All hypergradients would be 0.
    """
    found: Sequence[Tensor | None] = [None] * len(hyperparameters)
    if outer.requires_grad:
        found = torch.autograd.grad(outer, hyperparameters, allow_unused=True)
    if hyperparameters and not allow_unused and all(grad is None for grad in found):
        raise ValueError(
            "the outer loss does not depend on the weights after the step: expected a "
            "loss computed with gradients from what outer_loss is called with, and not "
            "from the model itself; or pass allow_unused=True"
        )
    return or_zeros(found, hyperparameters)
