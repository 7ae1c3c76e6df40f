"""Tensors whose functions are recorded, so that a loss of them can be repeated.

Inside a module's call, or inside a callable loss, a :class:`~.recorder.Recorder`
records all calls. Elsewhere the class of a tensor decides: each torch function of a
:class:`TapedTensor` is recorded, and its result is a :class:`TapedTensor` again.
"""

import copy
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from l2l_evograd.replay.call_state import RunAsWritten
from l2l_evograd.replay.recorder import Recorder, depends_on_marked
from l2l_evograd.replay.tape import forget, is_recorded

_active = threading.local()
_inference = torch.is_inference_mode_enabled

# Records functions outside of modules, where there are no buffers to copy.
_RECORDER = Recorder()


class TapedTensor(Tensor):
    """A tensor whose functions are recorded. Otherwise it behaves like any tensor.

    ``_follows``: whether results without a gradient are recorded too.
    """

    _follows: bool = False

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        with ordinary_functions():
            if func in _UNRECORDED or is_recording() or _inference():
                return func(*args, **kwargs)
            if getattr(func, "__name__", "") == "__get__":
                # Properties such as shape and requires_grad are read very often.
                value = func(*args, **kwargs)
                if not isinstance(value, Tensor):
                    return value
            follows = _any_follows([*args, *kwargs.values()])
            if not (follows or torch.is_grad_enabled()):
                return func(*args, **kwargs)
            _active.on = True
            try:
                with _RECORDER:
                    result = func(*args, **kwargs)
            finally:
                _active.on = False
            for item in args:
                if isinstance(item, Tensor):
                    _tape_one(item, follows)  # the call may have written to it
                    if item._base is not None:
                        _tape_one(item._base, follows)
            if not follows and isinstance(result, Tensor) and not result.requires_grad:
                forget(result)  # a constant must not keep its record
            return taped(result, follows)

    def __repr__(self) -> str:  # type: ignore[override]  # torch's own repr has an option
        return repr(plain(self))

    def __format__(self, format_spec: str) -> str:
        return plain(self).__format__(format_spec)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            return copy.deepcopy(plain(self), memo)  # raises torch's error
        with ordinary_functions():
            new = self.detach().as_subclass(Tensor).clone()
            return new.requires_grad_(self.requires_grad)

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


def ordinary_functions() -> AbstractContextManager[None]:
    """Return a context in which taped tensors are treated as ordinary tensors."""
    return torch._C.DisableTorchFunctionSubclass()


def is_recording() -> bool:
    """Say whether a recorder is active in this thread."""
    return getattr(_active, "on", False)


class Recording:
    """Record the body of one ``with``.

    If two are nested, only the outer one records. Nothing is recorded in inference
    mode.

    Args:
        buffers: see :class:`~.recorder.Recorder`.
        marked: likewise.

    Attributes:
        on: whether this recording, and not an outer one, has recorded the body.
    """

    def __init__(
        self, buffers: Iterable[Tensor] = (), marked: Sequence[Tensor] = ()
    ) -> None:
        self._recorder = Recorder(buffers, marked)
        self._leaving = _Leaving(self._recorder) if marked else None
        self._eager = RunAsWritten()
        self.on = False

    @property
    def escaped(self) -> bool:
        """Whether a value that depends on marked tensors has left the graph."""
        return self._recorder.escaped

    def __enter__(self) -> "Recording":
        if not (is_recording() or torch.is_inference_mode_enabled()):
            self.on = _active.on = True
            self._eager.__enter__()
            self._recorder.__enter__()
            if self._leaving is not None:
                self._leaving.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.on:
            if self._leaving is not None:
                self._leaving.__exit__(*error)
            self._recorder.__exit__(*error)
            self._eager.__exit__(*error)
            _active.on = False


class _Leaving(TorchFunctionMode):
    """Detect values that are read from a tensor without an aten call."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call the function."""
        if func in _LEAVING and depends_on_marked(self._recorder, args[0]):
            self._recorder.escaped = True
        return func(*args, **(kwargs or {}))


_LEAVING = frozenset(
    {
        Tensor.tolist,
        Tensor.numpy,
        Tensor.__array__,
        Tensor.__dlpack__,
        Tensor.__format__,
        Tensor.__repr__,
        Tensor.untyped_storage,
    }
)


def is_of_vmap(tensor: Tensor) -> bool:
    """Say whether a tensor belongs to a running ``torch.func`` transformation."""
    found: bool = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return found


class TruthOfVmap(TorchFunctionMode):
    """Let tensors inside ``torch.func.vmap`` say whether autograd follows them.

    Inside ``vmap`` no tensor seems to require grad, although the tensors of all tasks
    together do. Models that ask would take another branch than outside.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call the function."""
        if func in _ASKING:
            tensor = args[0]
            while is_of_vmap(tensor):
                tensor = torch._C._functorch.get_unwrapped(tensor)
            return func(tensor)
        return func(*args, **(kwargs or {}))


_ASKING = frozenset(
    {
        vars(torch._C.TensorBase)["requires_grad"].__get__,
        vars(torch._C.TensorBase)["is_leaf"].__get__,
    }
)


def plain(tensor: Tensor) -> Tensor:
    """Return the tensor as an ordinary one, on the same autograd graph."""
    if not isinstance(tensor, TapedTensor):
        return tensor
    with ordinary_functions():
        return tensor.as_subclass(Tensor)


def begin_tape(tensor: Tensor, follows: bool) -> TapedTensor:
    """Return ``tensor`` as a :class:`TapedTensor`, recorded from here on.

    The class of an ordinary tensor is changed in place, so no other code may hold that
    tensor. A new view would not work: a view can be neither detached nor written to in
    place, and a weight must allow both.
    """
    new: TapedTensor
    if type(tensor) is Tensor:
        forget(tensor)
        tensor.__class__ = TapedTensor
        new = tensor  # type: ignore[assignment]  # its class was just set
    else:
        with ordinary_functions():
            new = tensor.as_subclass(TapedTensor)
    new._follows = follows
    return new


def taped(results: Any, follows: bool) -> Any:
    """Turn the recorded tensors in ``results`` into :class:`TapedTensor`.

    Their class is changed in place, so ``results`` may be any container. Results
    without a gradient are constants to autograd. They are changed only if ``follows``,
    so that values stored for a report do not keep a record in memory.
    """
    for tensor in tensors_in(results):
        _tape_one(tensor, follows)
    return results


def tape_attributes(module: nn.Module, follows: bool) -> None:
    """Do the same for tensors that calls stored as attributes of the modules."""
    for child in module.modules():
        for value in vars(child).values():
            kind = type(value)
            if kind is Tensor:
                _tape_one(value, follows)
            elif (kind is list or kind is tuple) and value:
                for tensor in tensors_in(value, depth=1):
                    _tape_one(tensor, follows)


def tensors_in(item: Any, depth: int = 4) -> Iterator[Tensor]:
    """Return the tensors in nested containers.

    Containers are lists, tuples, sets, dicts, and objects with attributes, such as
    dataclasses and distributions, but not modules.
    """
    if isinstance(item, Tensor):
        yield item
    elif depth == 0 or isinstance(item, str | int | float | type | nn.Module):
        return
    elif isinstance(item, dict):
        for value in item.values():
            yield from tensors_in(value, depth - 1)
    elif isinstance(item, list | tuple | set | frozenset):
        for value in item:
            yield from tensors_in(value, depth - 1)
    elif hasattr(item, "__dict__"):
        for value in vars(item).values():
            yield from tensors_in(value, depth - 1)


def _tape_one(tensor: Tensor, follows: bool) -> None:
    if type(tensor) is not Tensor or not is_recorded(tensor):
        return
    if is_of_vmap(tensor):
        return
    if follows or tensor.requires_grad:
        tensor.__class__ = TapedTensor
        tensor._follows = follows  # type: ignore[attr-defined]  # its class has it


def _any_follows(items: Iterable[Any]) -> bool:
    for item in items:
        if isinstance(item, TapedTensor):
            if item._follows:
                return True
        elif isinstance(item, list | tuple) and _any_follows(item):
            return True
    return False
