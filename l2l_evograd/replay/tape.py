"""What was computed, call by call: the record that a loss is repeated from.

Calls point back to those whose results they read, as nodes of autograd's graph do, and
live as long as somebody can still read their results. ``recorder.py`` writes them down;
``program.py`` turns them into a function.
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
        function: what was called.
        args: its positional arguments; tensors as Read, Input or Constant, also in
            lists.
        kwargs: likewise.
        index: place in the order of recording.
        grad: whether gradients were switched on.
        on_graph: whether autograd sees it.
        random: the random state from before, where it draws from it.
        lost: why it cannot be repeated, or None.
        unseen: whether it writes to what is on autograd's graph behind autograd's back.
        resolves: whether it writes out a conjugate or a negative, which functions do
            below autograd: its result does not require grad, and is no constant.
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
    """The calls that wrote to one storage, in order, and who holds values of it.

    Attributes:
        writes: the calls so far.
        held: living readings that keep a value, to be copied before it is overwritten.
        version: of the storage when it was last looked at; -1 before anybody has.
        written: whether a call has written to it since. Autograd counts a write only
            after the recorder has seen it.
        on_graph: whether a tensor in it was on autograd's graph when it was read.
    """

    __slots__ = ("writes", "held", "version", "written", "on_graph")

    def __init__(self) -> None:
        self.writes: tuple[Call, ...] = ()
        self.held: list[weakref.ref[Read]] = []
        self.version = -1
        self.written = False
        self.on_graph = False


class Read:
    """An argument that was recorded: result ``slot`` of ``call`` after ``effects``.

    Attributes:
        value: the tensor itself, where it begins anew for autograd, as a constant or a
            leaf, or lies just outside of what depends on the marked tensors; None
            otherwise.
        version: of the value.
        lost: why the record does not lead here, or None.
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
        """What two readings of the same value have in common."""
        return id(self.call), self.slot, len(self.effects)


_WRITTEN_UNSEEN = (
    "it was written to in place by a way that was not followed, such as outside of "
    "functions of the learner's outputs"
)
_HIDDEN = (
    "it went through a function that hides its computation, such as a custom "
    "torch.autograd.Function"
)


def _may_change(hooks: Mapping[int, Any]) -> bool:
    """Say whether hooks may change a gradient: those of torch itself only look."""
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
    """What is known of a living tensor that a recorded call made."""

    __slots__ = ("alive", "call", "slot", "memory", "marked")

    def __init__(
        self, tensor: Tensor, call: Call, slot: int, memory: Memory, marked: bool
    ) -> None:
        # The number of a tensor is free for others once the tensor is gone.
        self.alive = weakref.ref(tensor, functools.partial(entries.pop, id(tensor)))
        self.call = call
        self.slot = slot
        self.memory = memory
        self.marked = marked


entries: dict[int, Entry] = {}


def version_of(tensor: Tensor) -> int:
    """Return how often a tensor was written to; -1 where nobody counts."""
    return -1 if tensor.is_inference() else tensor._version


def is_recorded(tensor: Tensor) -> bool:
    """Say whether it is known how the tensor was computed."""
    return id(tensor) in entries


def reading_of(tensor: Tensor) -> Read | None:
    """Return the tensor as it stands now, or None if it was not recorded."""
    entry = entries.get(id(tensor))
    if entry is None:
        return None
    return Read(entry, tensor)


def forget(tensor: Tensor) -> None:
    """Let the tensor begin a history of its own."""
    entries.pop(id(tensor), None)
