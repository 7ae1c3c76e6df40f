"""The record of calls from which a loss is repeated.

Each call refers to the calls whose results it reads, as nodes of autograd's graph do. A
call lives as long as its results can still be read. ``recorder.py`` writes the record;
``program.py`` turns it into a function.
"""

import functools
import itertools
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from l2l_evograd.replay.call_state import RandomState

clock = itertools.count()


class Call:
    """One recorded call.

    Attributes:
        function: the function that was called.
        args: its positional arguments; tensors as Read, Input or Constant, also in
            lists.
        kwargs: its keyword arguments, in the same form.
        index: position in the order of recording.
        grad: whether gradients were enabled.
        on_graph: whether autograd records the call.
        random: the random state before the call, if the call draws random numbers.
        lost: why the call cannot be repeated, or None.
        unseen: whether the call writes to a tensor on autograd's graph without autograd
            recording the write.
        resolves: whether the call materialises a conjugate or a negative view.
            Functions do this below autograd, so the result does not require grad,
            although it is not a constant.
    """

    __slots__ = (
        "function",
        "args",
        "kwargs",
        "index",
        "grad",
        "on_graph",
        "random",
        "lost",
        "unseen",
        "resolves",
    )

    def __init__(
        self, function: Callable[..., Any], args: Any = (), kwargs: Any = None
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs: dict[str, Any] = kwargs or {}
        self.index = next(clock)
        self.grad = torch.is_grad_enabled()
        self.on_graph = True
        self.random: RandomState | None = None
        self.lost: str | None = None
        self.unseen = False
        self.resolves = False


class Memory:
    """The calls that wrote to one storage, in order, and the readings of its values.

    Attributes:
        writes: the calls so far.
        held: the living readings that keep a value. The value is copied before a call
            overwrites it.
        version: the version of the storage when it was last read or written; -1 before
            the first time.
        written: whether a call has written to the storage since then. Autograd counts a
            write only after the recorder has seen it.
        on_graph: whether a tensor in the storage was on autograd's graph when read.
    """

    __slots__ = ("writes", "held", "version", "written", "on_graph")

    def __init__(self) -> None:
        self.writes: tuple[Call, ...] = ()
        self.held: list[weakref.ref[Read]] = []
        self.version = -1
        self.written = False
        self.on_graph = False


class Read:
    """A recorded argument: result ``slot`` of ``call``, after the writes ``effects``.

    Attributes:
        value: the tensor itself, if it is a constant or a leaf to autograd, or if it is
            an input of the part that depends on the marked tensors; None otherwise.
        version: the version of the value.
        lost: why the record does not describe this value, or None.
    """

    __slots__ = (
        "__weakref__",
        "call",
        "slot",
        "effects",
        "value",
        "version",
        "lost",
    )

    def __init__(self, entry: "Entry", tensor: Tensor) -> None:
        memory = entry.memory
        self.call = entry.call
        self.slot = entry.slot
        self.effects = memory.writes
        self.value: Tensor | None = None
        self.version = version_of(tensor)
        self.lost: str | None = None
        if self.version != memory.version:
            if memory.version >= 0 and self.version != memory.version + memory.written:
                self.lost = _WRITTEN_UNSEEN
            memory.version = self.version
        memory.written = False
        if tensor.grad_fn is not None:
            memory.on_graph = True
            if not (entry.call.on_graph or memory.writes):
                self.lost = _HIDDEN
            elif tensor._backward_hooks and _may_change(tensor._backward_hooks):
                self.lost = "a hook on one of its tensors changes or reads its gradient"

    @property
    def key(self) -> tuple[int, int, int]:
        """A key that is equal for two readings of the same value."""
        return id(self.call), self.slot, len(self.effects)


_WRITTEN_UNSEEN = (
    "one of its tensors was written to in place in a way that was not recorded, such "
    "as outside of functions of the learner's outputs"
)
_HIDDEN = (
    "it went through a function that hides its computation, such as a custom "
    "torch.autograd.Function"
)


def _may_change(hooks: Mapping[int, Any]) -> bool:
    """Say whether hooks may change a gradient; torch's own hooks only read it."""
    modules = [getattr(hook, "__module__", "") or "" for hook in hooks.values()]
    return not all(module.startswith("torch.") for module in modules)


class Input:
    """An argument from outside that requires grad, with its version when read."""

    __slots__ = ("value", "version")

    def __init__(self, value: Tensor) -> None:
        self.value = value
        self.version = value._version


class Constant:
    """A tensor argument from outside that does not require grad.

    ``scratch``: whether every replay gets a copy, because the call writes to it.
    """

    __slots__ = ("value", "version", "scratch")

    def __init__(self, value: Tensor, scratch: bool = False) -> None:
        self.value = value
        self.version = version_of(value)
        self.scratch = scratch


class Entry:
    """The record of a living tensor that a recorded call returned."""

    __slots__ = ("alive", "call", "slot", "memory", "marked")

    def __init__(
        self, tensor: Tensor, call: Call, slot: int, memory: Memory, marked: bool
    ) -> None:
        # Python may give the id of a deleted tensor to another object.
        self.alive = weakref.ref(tensor, functools.partial(entries.pop, id(tensor)))
        self.call = call
        self.slot = slot
        self.memory = memory
        self.marked = marked


entries: dict[int, Entry] = {}


def version_of(tensor: Tensor) -> int:
    """Return how often a tensor was written to; -1 if torch does not count it."""
    return -1 if tensor.is_inference() else tensor._version


def is_recorded(tensor: Tensor) -> bool:
    """Say whether the computation of the tensor was recorded."""
    return id(tensor) in entries


def reading_of(tensor: Tensor) -> Read | None:
    """Return a reading of the tensor's current value, or None if not recorded."""
    entry = entries.get(id(tensor))
    if entry is None:
        return None
    return Read(entry, tensor)


def forget(tensor: Tensor) -> None:
    """Delete the record of how the tensor was computed."""
    entries.pop(id(tensor), None)
