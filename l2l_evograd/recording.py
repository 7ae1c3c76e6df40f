"""A copy of a module whose calls are remembered.

:class:`Recording` owns a structural copy of a module, gives its weights a history, and
notes every call, so that a loss computed from the copy can be computed again with other
weights. :class:`Wrapper` is how callers hold such a module: it passes on calls and
attributes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from l2l_evograd.detached import DetachedValues, HeldDetached, holding
from l2l_evograd.functional import Circumstances, copy_structure
from l2l_evograd.graph import leaves_behind, reaches
from l2l_evograd.history import Node, Scratch
from l2l_evograd.losses import InnerLoss, check_differentiable, check_loss
from l2l_evograd.program import LostHistory, Program
from l2l_evograd.replay import (
    ReplayTensor,
    leaf_of,
    plain,
    snapshot,
    source,
    wrap_outputs,
)


class Wrapper(nn.Module):
    """A module that answers for another one: calls and attributes are passed on."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.training = module.training

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the wrapper, or else of the wrapped module."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "module":
                raise
            return getattr(self.module, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the wrapped module."""
        return self.module(*args, **kwargs)


class View(Wrapper):
    """A wrapper that hands on what is set on it, as the module itself would take it."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute of the wrapped module."""
        modules = self.__dict__.get("_modules", {})
        if "module" in modules and name not in self.__dict__:
            setattr(self.module, name, value)
        else:
            super().__setattr__(name, value)


class RecordedView(View):
    """What a loss function is given: the recorded module."""

    def __init__(self, recording: "Recording") -> None:
        self.__dict__["_recording"] = recording
        super().__init__(recording.module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module and remember the call."""
        return self._recording.call(*args, **kwargs)


class Candidate(View):
    """The module at other weights, with stand-ins for tensors that come in."""

    def __init__(self, module: nn.Module, stand_ins: dict[int, Tensor]) -> None:
        self.__dict__["_stand_ins"] = stand_ins
        super().__init__(module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module with the stand-ins."""
        args, kwargs = tree_map(
            lambda item: self._stand_ins.get(id(item), item), (args, kwargs)
        )
        return self.module(*args, **kwargs)


class Recording:
    """A structural copy of a module with weights that can move.

    Args:
        module: the module to copy; it is not changed.
        names: which of its parameters are weights; all others are shared.
        values: the weights to start from, on whatever autograd graph.
        own_buffers: whether the copy gets buffers of its own or writes to the module's.
        follow_detached: whether tensors without a gradient keep a history too, which
            losses whose detached parts are not held need.

    Attributes:
        module: the copy.
        values: the present weights.
        tracked: the same with histories, as they stand in the copy.
        moved: whether the weights have been moved.
    """

    def __init__(
        self,
        module: nn.Module,
        names: Sequence[str],
        values: Sequence[Tensor],
        own_buffers: bool = True,
        follow_detached: bool = True,
    ) -> None:
        self._follow_detached = follow_detached
        parameters = dict(module.named_parameters())
        self.names = list(names)
        self.values = list(values)
        self.moved = False
        self.tracked = self._with_history()
        exchanged: dict[int, Tensor] = {
            id(parameters[name]): tracked
            for name, tracked in zip(names, self.tracked, strict=True)
        }
        if own_buffers:
            exchanged |= {id(b): b.detach().clone() for b in module.buffers()}
        self.module = copy_structure(module, exchanged)
        self._places = [
            (child, key, position)
            for child in self.module.modules()
            for key, tensor in child._parameters.items()
            for position, tracked in enumerate(self.tracked)
            if tensor is tracked
        ]
        self._seen: dict[int, Tensor] = {}

    def move(self, values: Sequence[Tensor]) -> None:
        """Put the weights at new values, which begin histories of their own."""
        self.values = list(values)
        self.moved = True
        self.tracked = self._with_history()
        for child, key, position in self._places:
            child._parameters[key] = self.tracked[position]  # type: ignore[assignment]  # no leaf, so no Parameter

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module; what it returns remembers the call."""
        with torch._C.DisableTorchFunctionSubclass():
            if torch.is_inference_mode_enabled():
                return self.module(*args, **kwargs)
            tensors = self.tensors()
            arguments, _ = tree_flatten((args, kwargs))
            given = [item for item in arguments if isinstance(item, Tensor)]
            self._seen |= {id(t): t for t in given if t.requires_grad}
            flat, spec = tree_flatten(((tensors, args, kwargs), {}))
            leaves = [leaf_of(item) for item in flat]
            buffers = {id(buffer) for buffer in self.module.buffers()}
            for position, item in enumerate(flat[: len(tensors)]):
                if id(item) in buffers:
                    leaves[position] = Scratch(snapshot(item))
            function = ModuleCall(self.module, tensors)
            circumstances = Circumstances.now(t.device for t in [*tensors, *given])
            node = Node(function, leaves, spec, circumstances)
            with DetachedValues() as detached:
                outputs = self.module(*args, **kwargs)
            function.detached = detached.values
            node.packed = node.packed or detached.packed
            return wrap_outputs(outputs, node, flat)

    def inner_loss(self, loss: Tensor, hold_detached: bool) -> InnerLoss:
        """Return ``loss`` as a function of the present weights.

        Args:
            loss: computed from calls of the module.
            hold_detached: whether evaluations keep detached tensors as they are now.

        Raises:
            LostHistory: if it cannot be computed again.
            ValueError: if it does not depend on the present weights, or, where
                detached tensors are held, does not require grad.
        """
        if hold_detached:
            check_differentiable(loss)
        if not isinstance(loss, ReplayTensor):
            raise LostHistory(
                "it is an ordinary tensor, as what comes out of a custom "
                "autograd.Function or of torch.inference_mode() is"
            )
        with torch._C.DisableTorchFunctionSubclass():
            program = Program(loss, owner=self._owner, hold_detached=hold_detached)
            if not program.used:
                raise ValueError(
                    "the inner loss does not depend on the learner's present weights; "
                    "compute it from learner(...) after the last adapt()"
                )
            for tensor in program.inputs:
                if tensor.grad_fn is not None and any(reaches(tensor, self.values)):
                    raise LostHistory(
                        "it uses a tensor that depends on the weights by a way that "
                        "was not followed, such as one stored by a hook"
                    )
            return InnerLoss(program, program.inputs, packed=program.packed)

    def inner_loss_of(
        self,
        function: Callable[[Any], Tensor],
        view: nn.Module,
        outside: Sequence[Tensor],
        hold_detached: bool,
    ) -> tuple[Tensor, InnerLoss]:
        """Call ``function(view)``; return its value and the loss as a function.

        Where the value has lost its history, evaluations call ``function`` again with
        the module at other weights.

        Args:
            function: the inner loss.
            view: what to call it with first; calls :meth:`call`.
            outside: hyperparameters, which may be no leaves.
            hold_detached: as for :meth:`inner_loss`.
        """
        self._seen = {}
        moment = self.moment()
        start = _next_sequence_number()
        with DetachedValues() as detached:
            value = function(view)
        check_loss(value)
        try:
            return value, self.inner_loss(value, hold_detached)
        except LostHistory:
            pass  # the callable itself can be called again
        # Tensors that were there before are cut off, so that evaluations do not reach
        # into the caller's graph; leaves stand for themselves.
        cut = [t for t in (*self._seen.values(), *outside) if _older(t, start)]
        whole = leaves_behind(value, [*self.values, *cut])
        inputs = [*cut, *whole]
        twins = [t.detach().requires_grad_() for t in cut]

        def evaluate(params: Sequence[Tensor], leaves: Sequence[Tensor]) -> Tensor:
            stand_ins = {id(t): leaf for t, leaf in zip(cut, leaves, strict=False)}
            candidate = Candidate(moment.module(params), stand_ins)
            held = holding(map(plain, detached.values), hold_detached)
            with moment.circumstances.again(), held:
                return function(candidate)

        return value, InnerLoss(evaluate, inputs, [*twins, *whole], detached.packed)

    def moment(self) -> "Moment":
        """Return the module and the circumstances as they are now."""
        return Moment(self)

    def _with_history(self) -> list[ReplayTensor]:
        self._owner = object()
        follows = self._follow_detached
        return [source(v, self._owner, i, follows) for i, v in enumerate(self.values)]

    def tensors(self) -> list[Tensor]:
        """Return all tensors of the module: weights, other parameters, buffers."""
        weights = {id(tensor) for tensor in self.tracked}
        others = [p for p in self.module.parameters() if id(p) not in weights]
        return [*self.tracked, *others, *self.module.buffers()]


def _older(tensor: Tensor, start: int) -> bool:
    """Say whether a tensor was computed before autograd's sequence number ``start``."""
    return tensor.grad_fn is not None and tensor.grad_fn._sequence_nr() < start


def _next_sequence_number() -> int:
    with torch.enable_grad():
        probe = torch.zeros((), requires_grad=True) + 0
    if probe.grad_fn is None:
        raise RuntimeError("autograd records nothing, though it is switched on")
    return probe.grad_fn._sequence_nr()


class Moment:
    """A recorded module as it was at one time, to be called anew from there.

    Attributes:
        others: its tensors besides the weights.
        circumstances: random state, autocast and grad mode of the time.
    """

    def __init__(self, recording: Recording) -> None:
        tensors = recording.tensors()
        self._weights = recording.values
        self.others = tensors[len(self._weights) :]
        buffers = {id(buffer) for buffer in recording.module.buffers()}
        self._buffers = {id(t): snapshot(t) for t in self.others if id(t) in buffers}
        self._call = ModuleCall(recording.module, tensors)
        self.circumstances = Circumstances.now(t.device for t in tensors)

    def module(self, params: Sequence[Tensor] | None = None) -> nn.Module:
        """Return the module with buffers of its own.

        Args:
            params: the weights; None: those of the time.
        """
        rest = [
            self._buffers[id(t)].clone() if id(t) in self._buffers else t
            for t in self.others
        ]
        weights = self._weights if params is None else params
        return self._call.module([*weights, *rest])


class ModuleCall:
    """A call of a module as it was at the time, as a function of all its tensors."""

    def __init__(self, module: nn.Module, tensors: Sequence[Tensor]) -> None:
        # Placeholders, so that the record does not keep the weights alive.
        self._places = [torch.empty(0) for _ in tensors]
        self.detached: list[Tensor] = []
        self._frozen = copy_structure(
            module,
            {id(t): place for t, place in zip(tensors, self._places, strict=True)},
        )

    def __call__(
        self, tensors: Sequence[Tensor], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """Make the call with ``tensors``."""
        return self.module(tensors)(*args, **kwargs)

    def with_held(
        self, tensors: Sequence[Tensor], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """Make the call with detached tensors as they were."""
        with HeldDetached(self.detached):
            return self(tensors, args, kwargs)

    def module(self, tensors: Sequence[Tensor]) -> nn.Module:
        """Return the module around ``tensors``."""
        return copy_structure(
            self._frozen,
            {id(place): t for place, t in zip(self._places, tensors, strict=True)},
        )
