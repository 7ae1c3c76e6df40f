"""Putting everything back if a step cannot be finished."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from l2l_evograd.checks import InputError, check_generator
from l2l_evograd.replay.call_state import random_state, set_random_state

P = ParamSpec("P")
R = TypeVar("R")


def undo_for(model: object, generator: torch.Generator | None = None) -> "Undo":
    """Return an :class:`Undo` for a module, or for other weights, and a generator.

    Raises:
        TypeError: if ``generator`` is not a generator.
    """
    check_generator(generator)
    if not isinstance(model, nn.Module):
        found = model.values() if isinstance(model, Mapping) else ()
        devices = {value.device for value in found if isinstance(value, Tensor)}
        return Undo(None, devices, generator)
    return Undo(model, {p.device for p in model.parameters()}, generator)


def or_nothing(function: Callable[P, R]) -> Callable[P, R]:
    """Put torch's random states back where a function raises an error."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        places = [torch.device("cuda")] if torch.cuda.is_initialized() else []
        with Undo(None, places):
            return function(*args, **kwargs)

    return called


@contextlib.contextmanager
def unchanged(tensors: Sequence[Tensor], what: str, on: bool = True) -> Iterator[None]:
    """Put tensors back if the body raises an error or changes them; the latter is one.

    Autograd notices most writes itself, but not those to ``.data``.

    Args:
        tensors: the weights and λ.
        what: who could write to them, for the message.
        on: whether to look.

    Raises:
        RuntimeError: if one of them has changed.

    Cost: two copies of the tensors.
    """
    if not on:
        yield
        return
    kept = Undo.of(tensors)
    try:
        yield
    except BaseException:
        kept.put_back()
        raise
    again = Undo.of(tensors)
    if not kept.equals(again):
        kept.put_back()
        raise RuntimeError(
            f"{what} changed weights or hyperparameters in place, perhaps through "
            f".data: expected it to compute a loss and to write to nothing but "
            f"buffers; their values were put back"
        )


@contextlib.contextmanager
def kept_grads(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Keep the body's derivatives out of the ``.grad`` that ``retain_grad()`` fills."""
    before = [(t, t.grad) for t in tensors if t.retains_grad and not t.is_leaf]
    try:
        yield
    finally:
        for tensor, grad in before:
            tensor.grad = grad


class Undo:
    """Puts back what the body of a ``with`` has moved, if it raises an error.

    That is: the buffers of a module, torch's random states, and what :meth:`keep` was
    called with.

    Args:
        model: a module; None: there is none.
        devices: devices whose global random state is put back, besides the CPU's.
        generator: a generator whose random state is put back.

    Cost: a copy of the buffers and of the random states, 5 kB each.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        devices: Iterable[torch.device] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        self._tensors: list[tuple[list[Tensor], Tensor]] = []
        self._grads: list[tuple[Tensor, Tensor | None]] = []
        self._mappings: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        self._lists: list[tuple[list[Any], list[Any]]] = []
        self._keep_tensors(() if model is None else model.buffers())
        places = {torch.device("cpu"), *devices}
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            places = {torch.device("cpu")}  # the others cannot be read now
        self._random = [(place, random_state(place)) for place in places]
        self._generator = generator
        self._state = None if generator is None else generator.get_state()

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> "Undo":
        """Return one for tensors alone, which puts back nothing else."""
        undo = cls()
        undo._random = []
        undo._keep_tensors(tensors)
        return undo

    def equals(self, other: "Undo") -> bool:
        """Say whether the same tensors were kept with the same bits."""
        pairs = zip(self._tensors, other._tensors, strict=True)
        return all(
            torch.equal(a.view(torch.uint8), b.view(torch.uint8))
            for (_, a), (_, b) in pairs
        )

    def keep(self, tensors: Sequence[Tensor], *optimizers: Optimizer) -> None:
        """Keep tensors with their ``.grad``, and the state of optimizers.

        Cost: a copy of the tensors and of the state.
        """
        found = list(tensors)
        self._grads += [(tensor, tensor.grad) for tensor in tensors]
        for optimizer in optimizers:
            self._keep(optimizer.state, found)
            for group in optimizer.param_groups:
                known = dict(group)
                self._mappings.append((group, known))
                for key, value in known.items():
                    if key != "params":
                        self._keep(value, found)
        self._keep_tensors(found)

    def __enter__(self) -> "Undo":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            return
        self.put_back()
        if isinstance(error, RuntimeError) and "second time" in str(error):
            raise InputError(
                "a loss uses a tensor that was computed from weights or "
                "hyperparameters before the call, and whose graph is freed by the "
                "first derivative: expected losses that compute it themselves; move "
                "that computation into the loss"
            ) from error

    def put_back(self) -> None:
        """Put everything back."""
        for mapping, entries in self._mappings:
            mapping.clear()
            mapping.update(entries)
        for items, known in self._lists:
            items[:] = known
        with torch.no_grad():
            for tensors, flat in self._tensors:
                values = flat.split([tensor.numel() for tensor in tensors])
                for tensor, value in zip(tensors, values, strict=True):
                    tensor.copy_(value.view(tensor.shape))
        for tensor, grad in self._grads:
            tensor.grad = grad
        for device, state in self._random:
            set_random_state(device, state)
        if self._generator is not None and self._state is not None:
            self._generator.set_state(self._state)

    def _keep_tensors(self, tensors: Iterable[Tensor]) -> None:
        alike: dict[Any, list[Tensor]] = {}
        for tensor in tensors:
            alike.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        with torch.no_grad():
            for members in alike.values():
                flat = torch.cat([member.reshape(-1) for member in members])
                self._tensors.append((members, flat))

    def _keep(self, value: Any, tensors: list[Tensor]) -> None:
        """Keep what an optimizer's state or a setting holds; gather its tensors."""
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, dict):
            self._mappings.append((value, dict(value)))
            for part in value.values():
                self._keep(part, tensors)
        elif isinstance(value, list):
            self._lists.append((value, list(value)))
            for part in value:
                self._keep(part, tensors)
