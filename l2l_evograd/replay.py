"""Tensors that remember how they were computed, so they can be computed again.

A :class:`ReplayTensor` behaves as any tensor. Beside its value it carries a
:class:`Node`: the function it came from, what went in, and in which circumstances. All
that is computed from it is a :class:`ReplayTensor` too, so that a loss written in
ordinary code leads back to the weights it depends on. ``program.py`` turns such a
history into a function of those weights.

In-place operations are followed through views: every tensor of one storage shares a
list of the operations that wrote to it, and whoever reads the tensor later depends on
those written so far.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from l2l_evograd.functional import Circumstances
from l2l_evograd.history import Constant, Node, Read, Scratch, Source, Writes

_IN_PLACE_OPERATORS = frozenset(
    f"__i{name}__"
    for name in "add sub mul truediv floordiv mod pow and or xor lshift rshift".split()
) | {"__setitem__"}


_WRITTEN_UNSEEN = (
    "it was written to by a way that was not followed, such as through a detached "
    "tensor that shares its memory"
)


class ReplayTensor(Tensor):
    """A tensor that can be computed again with other parameters."""

    _node: Node | Source
    _slot: int
    _writes: Writes
    _had_grad: bool

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func in _UNRECORDED or torch.is_inference_mode_enabled():
                return func(*args, **kwargs)
            if getattr(func, "__name__", "") == "__get__":
                # Properties such as shape and requires_grad, read all the time.
                value = func(*args, **kwargs)
                if not isinstance(value, Tensor):
                    return value
            return _call_and_record(func, args, kwargs)

    def __repr__(self) -> str:  # type: ignore[override]  # its option is torch's own
        return repr(plain(self))

    def __format__(self, format_spec: str) -> str:
        return plain(self).__format__(format_spec)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return copy.deepcopy(plain(self), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return plain(self).__reduce_ex__(protocol)


_UNRECORDED = frozenset(
    {
        vars(torch._C.TensorBase)["grad"].__get__,
        Tensor.backward,
        Tensor.item,
        Tensor.tolist,
        Tensor.numpy,
        Tensor.as_subclass,
    }
)


def plain(tensor: Tensor) -> Tensor:
    """Return the tensor without its history, on the same autograd graph."""
    if not isinstance(tensor, ReplayTensor):
        return tensor
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.as_subclass(Tensor)


def snapshot(tensor: Tensor) -> Tensor:
    """Return a copy without a graph; not by ``detach``, whose calls are observed."""
    with torch.no_grad():
        return tensor.clone()


def source(
    tensor: Tensor, owner: object, position: int, follows: bool = True
) -> ReplayTensor:
    """Return ``tensor`` as weight number ``position`` of ``owner``."""
    with torch._C.DisableTorchFunctionSubclass():
        new = tensor.as_subclass(ReplayTensor)
        writes = Writes(_version(new))
        return _remember(new, Source(owner, position, follows), 0, writes)


def leaf_of(value: Any) -> Any:
    """Return how an argument is kept in a node; call it before the function runs."""
    if isinstance(value, ReplayTensor):
        node = value._node
        hidden = value._had_grad != value.requires_grad
        # A write through a view changes this too, but is in the history.
        if hidden and not value._writes.nodes:
            node.lost = (
                "it went through a function that hides its computation, such as a "
                "custom autograd.Function"
            )
        if value._writes.version != _version(value):
            node.lost = _WRITTEN_UNSEEN
        effects = tuple(value._writes.nodes)
        return Read(node, value._slot, effects, value, _version(value))
    if isinstance(value, Tensor):
        return Constant(value, _version(value))
    return value


def wrap_outputs(outputs: Any, node: Node, taken: Sequence[Any]) -> Any:
    """Return ``outputs`` with every tensor remembering ``node``.

    Those without a gradient are constants to autograd. Unless ``node`` follows them,
    they stay as they are, so that figures kept for a report do not keep a history.

    Args:
        outputs: what the call returned, tensors in any nesting.
        node: the record of the call.
        taken: objects that existed before the call; an output that is one of them is
            aliased, not changed.
    """
    leaves, spec = tree_flatten(outputs)
    known = {id(item) for item in taken}
    relatives = {
        _storage(item): item._writes for item in taken if isinstance(item, ReplayTensor)
    }
    for slot, output in enumerate(leaves):
        if not isinstance(output, Tensor):
            continue
        if not (node.follows or output.requires_grad):
            continue
        writes = relatives.get(_storage(output), Writes(_version(output)))
        if type(output) is Tensor and id(output) not in known:
            # An alias would be a view, which restricts later in-place operations.
            output.__class__ = ReplayTensor
        else:
            output = output.as_subclass(ReplayTensor)
        leaves[slot] = _remember(output, node, slot, writes)
    return tree_unflatten(leaves, spec)


def _call_and_record(
    func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> Any:
    flat, spec = tree_flatten((tuple(args), kwargs))
    tensors = [item for item in flat if isinstance(item, Tensor)]
    leaves = [leaf_of(item) for item in flat]
    target = _written_plain_tensor(func, flat)
    function: Callable[..., Any] = func
    if target is not None:
        function, target = _on_base(func, target)
        tracked = isinstance(target, ReplayTensor)
        leaves[0] = leaf_of(target) if tracked else Scratch(target.clone())
    node = Node(function, leaves, spec, Circumstances.now(t.device for t in tensors))
    if _is_unseen_alias(target, flat):
        node.lost = _WRITTEN_UNSEEN
    outputs = func(*args, **kwargs)
    written = [
        (position, item)
        for position, (item, leaf) in enumerate(zip(flat, leaves, strict=True))
        if isinstance(leaf, Read | Constant) and leaf.version != _version(item)
        if position > 0 or target is None
    ]
    for position, item in written:
        if isinstance(item, ReplayTensor):
            _drop_stale(leaves[position], _storage(item))
            item._writes.append(node, _version(item))
        else:
            leaves[position] = Scratch(snapshot(item))
    if target is not None:
        # As with requires_grad, a tensor written to takes part from now on.
        if isinstance(target, ReplayTensor):
            _drop_stale(leaves[0], _storage(target))
            target._writes.append(node, _version(target))
        elif type(target) is Tensor:
            target.__class__ = ReplayTensor
            writes = Writes(_version(target))
            writes.append(node, _version(target))
            _remember(target, node, -1, writes)
        flat = [*flat, target]
    if func is Tensor.requires_grad_:
        outputs._had_grad = outputs.requires_grad
        return outputs
    return _settle(outputs, node, flat, [item for _, item in written])


def _on_base(
    func: Callable[..., Any], view: Tensor
) -> tuple[Callable[..., Any], Tensor]:
    """Return a write to a view as a write to the whole tensor, and that tensor."""
    base = view._base
    if base is None or type(base) not in (Tensor, ReplayTensor):
        return func, view
    size, stride, offset = view.size(), view.stride(), view.storage_offset()

    def write(whole: Tensor, *args: Any, **kwargs: Any) -> Any:
        return func(whole.as_strided(size, stride, offset), *args, **kwargs)

    return write, base


def _is_unseen_alias(target: Tensor | None, flat: list[Any]) -> bool:
    """Say whether a tensor without a history shares memory with one that has one."""
    if target is None or isinstance(target, ReplayTensor):
        return False
    others = [item for item in flat if isinstance(item, ReplayTensor)]
    return any(_storage(item) == _storage(target) for item in others)


def _drop_stale(reading: Any, storage: int) -> None:
    """Let go of values that were overwritten, along the chain of views of a storage.

    They stand for nothing any more, and would close a reference cycle with what the
    write is recorded in.
    """
    while isinstance(reading, Read) and reading.value is not None:
        if _storage(reading.value) != storage:
            return
        reading.value = None
        if not isinstance(reading.node, Node) or not reading.node.leaves:
            return
        reading = reading.node.leaves[0]


def _settle(outputs: Any, node: Node, flat: list[Any], written: list[Any]) -> Any:
    """Wrap what is new; move the history of what came in and was written to."""
    for slot, output in enumerate(tree_flatten(outputs)[0]):
        if isinstance(output, ReplayTensor) and any(output is item for item in flat):
            if any(output is item for item in written) or output._slot == -1:
                _remember(output, node, slot, output._writes)
            return outputs
    return wrap_outputs(outputs, node, flat)


def _remember(
    tensor: Tensor, node: Node | Source, slot: int, writes: Writes
) -> "ReplayTensor":
    if not isinstance(tensor, ReplayTensor):
        raise TypeError(f"expected a ReplayTensor, got {type(tensor).__name__}")
    tensor._node = node
    tensor._slot = slot
    tensor._writes = writes
    tensor._had_grad = tensor.requires_grad
    return tensor


def _written_plain_tensor(func: Callable[..., Any], flat: list[Any]) -> Tensor | None:
    """Return the tensor without a history that ``func`` is about to write to."""
    name = getattr(func, "__name__", "")
    in_place = name in _IN_PLACE_OPERATORS or (
        name.endswith("_") and not name.endswith("__")
    )
    first = flat[0] if flat else None
    if in_place and isinstance(first, Tensor) and not isinstance(first, ReplayTensor):
        return first
    return None


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _storage(tensor: Tensor) -> int:
    if tensor.layout is not torch.strided:
        return id(tensor)  # sparse tensors have no views that could be written to
    return tensor.untyped_storage().data_ptr()
