"""The recorder: a mode that sees every aten call while it is active."""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from l2l_evograd.replay.call_state import RandomState
from l2l_evograd.replay.tape import (
    Call,
    Constant,
    Entry,
    Input,
    Memory,
    Read,
    clock,
    entries,
    version_of,
)
from l2l_evograd.replay.traits import Traits, traits_of

_NUMBERS = frozenset({int, float, bool, str, type(None)})


class Recorder(TorchDispatchMode):
    """Record the aten calls that depend on tensors that require grad.

    Args:
        buffers: tensors that may be written to later, such as a module's buffers: the
            record keeps copies of them.
        marked: tensors such as λ. The record keeps the other tensors that are read by
            the part that depends on them, so that this part can be computed again on
            the graph of the rest.
    """

    def __init__(
        self, buffers: Iterable[Tensor] = (), marked: Iterable[Tensor] = ()
    ) -> None:
        super().__init__()
        self._buffers = {id(buffer) for buffer in buffers}
        self._copies: dict[int, tuple[int, Tensor]] = {}
        self._marked = {id(tensor) for tensor in marked}
        self.escaped = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Skipping dynamo would take as long as recording a call.
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Make the call; record it if it depends on a tensor that requires grad."""
        depends = _depends(args)
        if kwargs and not depends:
            inner = _depends(kwargs.values())
            depends = depends if inner is None else inner
        if depends is None:
            return func(*args, **(kwargs or {}))
        traits = traits_of(func)
        if traits.plain and not (kwargs or self._marked):
            # Fast path: most calls are plain and need no further checks.
            call = Call(func, [self._operand(item, False) for item in args])
            call.on_graph = depends and call.grad
            results = func(*args)
            if type(results) is Tensor:
                _note(results, call, -1, None, False)
                return results
            self._note_all(results, call, None, False)
            return results
        kwargs = kwargs or {}
        if traits.writes and _is_silent(traits, args, kwargs):
            return func(*args, **kwargs)
        call = Call(func)
        call.on_graph = depends and call.grad
        if traits.writes:
            self._before_writing(call, traits, args, kwargs)
        marked = bool(self._marked) and self._is_marked([*args, *kwargs.values()])
        self._note_arguments(call, traits, args, kwargs, marked)
        call.index = next(clock)  # after the calls recorded for its arguments
        if traits.random:
            call.random = RandomState.of(args, kwargs)
        if traits.escapes and marked:
            self.escaped = True
        if traits.copies:
            call.resolves = args[0].is_conj() or args[0].is_neg()
        results = func(*args, **kwargs)
        if traits.writes:
            self._after_writing(call, traits, args, kwargs, marked)
        memory = None
        if traits.views:
            memory = next((m for m in map(_memory_of, args) if m is not None), None)
        self._note_all(results, call, memory, marked)
        return results

    def _note_all(
        self, results: Any, call: Call, memory: Memory | None, marked: bool
    ) -> None:
        if isinstance(results, Tensor):
            _note(results, call, -1, memory, marked)
        elif isinstance(results, list | tuple):
            for slot, item in enumerate(results):
                if isinstance(item, Tensor):
                    _note(item, call, slot, memory, marked)

    def _note_arguments(
        self,
        call: Call,
        traits: Traits,
        args: Any,
        kwargs: dict[str, Any],
        marked: bool,
    ) -> None:
        special = (*traits.writes, *traits.unmarked)
        call.args = [
            _written(item, position in traits.unmarked)
            if special and position in special
            else self._operand(item, marked, shared=traits.views)
            for position, item in enumerate(args)
        ]
        for name, item in kwargs.items():
            written = name in traits.writes
            call.kwargs[name] = (
                _written(item) if written else self._operand(item, marked)
            )

    def _operand(self, item: Any, marked: bool, shared: bool = False) -> Any:
        """Return an argument in the form in which the record keeps it.

        Args:
            item: the argument.
            marked: whether the call depends on a marked tensor.
            shared: whether the result may share memory with the argument. If so, the
                argument is never kept as a value, so that a later write to the result
                also reaches the argument in a replay.
        """
        kind = type(item)
        if kind in _NUMBERS:
            return item
        if kind is list or kind is tuple:
            if all(type(part) is int for part in item):
                return list(item)
            return [self._operand(part, marked, shared) for part in item]
        if not isinstance(item, Tensor):
            if isinstance(item, torch.Generator):
                return None  # a replay restores the random state instead
            return item
        entry = entries.get(id(item))
        if entry is None:
            if item._base is not None and id(item._base) in entries:
                entry = _begin(item)  # a view made before a write to its base
            if entry is None:
                if item.requires_grad:
                    return Input(item)
                return Constant(self._lasting(item))
        read = Read(entry, item)
        if shared:
            return read
        if item.is_leaf and not entry.call.resolves:
            read.value = item
            # A marked value that left the graph, as by detach(), is used here.
            self.escaped = self.escaped or entry.marked
            entry.memory.held.append(weakref.ref(read))
        elif marked and not entry.marked:
            read.value = item
        return read

    def _lasting(self, item: Tensor) -> Tensor:
        """Return a constant itself, or a copy if it may be written to later."""
        if id(item) not in self._buffers:
            return item
        version, copy = self._copies.get(id(item), (None, item))
        if version != version_of(item):
            copy = item.clone()
            self._copies[id(item)] = version_of(item), copy
        return copy

    def _is_marked(self, items: Iterable[Any]) -> bool:
        for item in items:
            if isinstance(item, list | tuple):
                if self._is_marked(item):
                    return True
            elif isinstance(item, Tensor):
                entry = entries.get(id(item))
                if id(item) in self._marked or (entry is not None and entry.marked):
                    return True
        return False

    def _before_writing(
        self, call: Call, traits: Traits, args: Any, kwargs: dict[str, Any]
    ) -> None:
        for target in _targets(traits.writes, args, kwargs):
            entry = entries.get(id(target))
            if entry is None:
                if target.requires_grad:
                    call.lost = (
                        "it writes in place to a tensor from outside that requires grad"
                    )
                    continue
                entry = _begin(target)
            if entry is None:
                call.lost = "it writes to a tensor with gaps in its memory"
                continue
            if not call.on_graph and (target.requires_grad or entry.memory.on_graph):
                call.unseen = True
            for alive in entry.memory.held:
                read = alive()
                if read is not None and read.value is not None:
                    read.value = read.value.detach().clone()
                    read.version = version_of(read.value)
            entry.memory.held.clear()

    def _after_writing(
        self,
        call: Call,
        traits: Traits,
        args: Any,
        kwargs: dict[str, Any],
        marked: bool,
    ) -> None:
        for target in _targets(traits.writes, args, kwargs):
            entry = entries.get(id(target))
            if entry is not None:
                entry.memory.writes = (*entry.memory.writes, call)
                entry.memory.version = version_of(target)
                entry.memory.written = True
                entry.marked = entry.marked or marked


def _note(
    result: Tensor, call: Call, slot: int, memory: Memory | None, marked: bool
) -> None:
    if id(result) not in entries:
        entry = Entry(result, call, slot, memory or Memory(), marked)
        entries[id(result)] = entry


def _written(item: Any, unmarked: bool = False) -> Any:
    """Return the form of a written argument in the record: never its shared value."""
    if isinstance(item, list | tuple):
        return [_written(part, unmarked) for part in item]
    if not isinstance(item, Tensor):
        return item
    entry = entries.get(id(item))
    if unmarked or entry is None:
        return Constant(item.clone(), scratch=True)
    return Read(entry, item)


def depends_on_marked(recorder: Recorder, tensor: Tensor) -> bool:
    """Say whether a tensor is marked or was computed from one that is."""
    return recorder._is_marked([tensor])


def _depends(items: Iterable[Any]) -> bool | None:
    """Say whether a call depends on tensors that require grad.

    False: only through values that are constants to autograd. None: it does not.
    """
    found: bool | None = None
    for item in items:
        if isinstance(item, Tensor):
            if item.requires_grad:
                return True
            entry = entries.get(id(item))
            if entry is not None:
                if entry.call.resolves:
                    return True
                found = False
        elif type(item) in (list, tuple):
            inner = _depends(item)
            if inner:
                return True
            found = found if inner is None else inner
    return found


def _is_silent(traits: Traits, args: Any, kwargs: dict[str, Any]) -> bool:
    """Say whether a write only changes the value of an input, not the graph.

    This is how autograd treats a change of a weight under ``torch.no_grad()``.
    """
    if torch.is_grad_enabled():
        return False
    targets = _targets(traits.writes, args, kwargs)
    return all(t.requires_grad and id(t) not in entries for t in targets)


def _targets(
    writes: Iterable[int | str], args: Any, kwargs: dict[str, Any]
) -> list[Tensor]:
    found: list[Tensor] = []
    for place in writes:
        item = kwargs.get(place) if isinstance(place, str) else args[place]
        items = item if isinstance(item, list | tuple) else [item]
        found.extend(t for t in items if isinstance(t, Tensor))
    return found


def _begin(target: Tensor) -> Entry | None:
    """Start a record for a tensor from outside, before a recorded call writes to it.

    Returns None if a copy would have another memory layout.
    """
    base = target._base if target._base is not None else target
    entry = entries.get(id(base))
    if entry is None:
        snapshot = base.detach().clone()
        if snapshot.stride() != base.stride():
            return None
        keep = {"memory_format": torch.preserve_format}
        start = Call(torch.ops.aten.clone.default, [Constant(snapshot)], keep)
        entry = Entry(base, start, -1, Memory(), False)
        entries[id(base)] = entry
    if target is base:
        return entry
    place = target.storage_offset() - base.storage_offset()
    layout = [list(target.size()), list(target.stride()), place]
    view = Call(torch.ops.aten.as_strided.default, [Read(entry, base), *layout])
    found = Entry(target, view, -1, entry.memory, entry.marked)
    entries[id(target)] = found
    return found


def _memory_of(item: Any) -> Memory | None:
    if not isinstance(item, Tensor):
        return None
    entry = entries.get(id(item))
    return None if entry is None else entry.memory
