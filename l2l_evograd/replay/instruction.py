"""One call of a replay, and where it finds its arguments.

A replay keeps its values in a list, called its room: the variables, then the result of
each call, then the inputs.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from l2l_evograd.replay.tape import Call


class Place:
    """A reference to a value in the room: result ``slot`` of the value at ``place``.

    A negative slot means the whole value.
    """

    __slots__ = ("place", "slot")

    def __init__(self, place: int, slot: int = -1) -> None:
        self.place = place
        self.slot = slot

    def pick(self, room: list[Any]) -> Any:
        """Return the argument."""
        value = room[self.place]
        return value if self.slot < 0 else value[self.slot]

    def places(self) -> list[int]:
        """Return the places in the room that are read."""
        return [self.place]


class Kept:
    """A tensor that keeps its recorded value."""

    __slots__ = ("value",)

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def pick(self, room: list[Any]) -> Any:
        """Return the argument."""
        return self.value

    def places(self) -> list[int]:
        """Return the places in the room that are read."""
        return []


class Copy(Kept):
    """A tensor that a call writes to; each replay gets a fresh copy."""

    __slots__ = ()

    def pick(self, room: list[Any]) -> Any:
        """Return the argument."""
        return self.value.clone()


class Nested:
    """A list of arguments; a replay fills in some of them."""

    __slots__ = ("items", "gaps")

    def __init__(self, items: list[Any], gaps: list[tuple[int, Any]]) -> None:
        self.items = items
        self.gaps = gaps

    def pick(self, room: list[Any]) -> Any:
        """Return the argument."""
        items = list(self.items)
        for position, source in self.gaps:
            items[position] = source.pick(room)
        return items

    def places(self) -> list[int]:
        """Return the places in the room that are read."""
        return [place for _, source in self.gaps for place in source.places()]


@contextlib.contextmanager
def _without_derivatives() -> Iterator[None]:
    """Switch autograd off in the body, and forward mode as well."""
    with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
        yield


class Instruction:
    """One call of a replay.

    ``finished``: places that no later call reads.
    """

    __slots__ = ("function", "args", "gaps", "kwargs", "named", "states", "finished")

    def __init__(
        self,
        call: Call,
        args: list[Any],
        gaps: list[tuple[int, Any]],
        kwargs: dict[str, Any],
        named: list[tuple[str, Any]],
    ) -> None:
        self.function: Any = call.function
        self.args = args
        self.gaps = gaps
        self.kwargs = kwargs
        self.named = named
        self.states: list[Callable[[], AbstractContextManager[None]]] = []
        if not call.grad:
            self.states.append(_without_derivatives)
        if call.random is not None:
            self.states.append(call.random.again)
        self.finished: list[int] = []

    def run(self, room: list[Any], instead: Mapping[Any, Any]) -> Any:
        """Make the call, or that of the function that stands in for its function."""
        function = instead.get(self.function, self.function)
        args = list(self.args)
        for position, source in self.gaps:
            args[position] = source.pick(room)
        kwargs = self.kwargs
        if self.named:
            kwargs = dict(kwargs)
            for name, source in self.named:
                kwargs[name] = source.pick(room)
        if not self.states:
            return function(*args, **kwargs)
        with contextlib.ExitStack() as stack:
            for state in self.states:
                stack.enter_context(state())
            return function(*args, **kwargs)

    def places(self) -> list[int]:
        """Return the places in the room that are read."""
        sources = [source for _, source in [*self.gaps, *self.named]]
        return [place for source in sources for place in source.places()]
