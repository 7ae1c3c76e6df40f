"""A record as a function: the calls between chosen tensors and a result.

:class:`Program` walks back from a recorded tensor and keeps the calls that lead to it
from its *variables*, usually the learner's weights. Any other tensor that these calls
read and that requires grad becomes an *input*: the hyperparameters, and any tensor
computed elsewhere (features of a frozen body, weights from another network). The
program stops at its inputs, so its derivatives never reach into the caller's autograd
graph.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor

from l2l_evograd.replay.autograd_graph import reached_from
from l2l_evograd.replay.call_state import without_autocast
from l2l_evograd.replay.instruction import Copy, Instruction, Kept, Nested, Place
from l2l_evograd.replay.tape import (
    Call,
    Constant,
    Input,
    Read,
    reading_of,
    version_of,
)

_NOTHING: Mapping[Any, Any] = MappingProxyType({})


class LostHistory(TypeError):
    """A tensor cannot be computed again with other weights."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the loss cannot be computed again with other weights: {reason}. Expected "
            f"a tensor computed from learner(...) with torch functions; pass a "
            f"callable, as in adapt(lambda learner: loss_fn(learner(x), y)), or use "
            f"estimator='exact' with memory='graph', which computes nothing again"
        )


class Program:
    """The computation of one tensor, as a function of variables and inputs.

    Args:
        target: the recorded tensor to compute again.
        variables: the tensors that the arguments of a call replace, in their current
            state.
        hold: whether tensors that are constants to autograd, such as the result of
            ``.detach()``, keep their recorded values; if False, they are computed again
            too.
        behind: whether to stop at every tensor that does not depend on the variables.
            Such a tensor becomes an input, on the graph on which it was computed.

    Attributes:
        inputs: the tensors besides the variables that the program depends on and that
            require grad, each once.
        used: the positions of the variables that the program uses.

    Raises:
        LostHistory: if part of the record is missing.
        RuntimeError: if a tensor that was read has been changed in place since.
    """

    def __init__(
        self,
        target: Tensor,
        variables: Sequence[Tensor],
        hold: bool,
        behind: bool = False,
    ) -> None:
        self._hold = hold
        self._behind = behind
        self.inputs: list[Tensor] = []
        self.used: set[int] = set()
        self._input_numbers: dict[int, int] = {}
        self._constants: list[tuple[Tensor, int]] = []
        self._variables: dict[int | tuple[int, int, int], int] = {}
        for position, variable in enumerate(variables):
            read = reading_of(variable)
            self._variables[id(variable) if read is None else read.key] = position
        end = reading_of(target)
        if end is None:
            raise LostHistory("its computation was not recorded")
        calls = self._ancestors(end)
        self._places_from = len(variables)
        places = itertools.count(self._places_from)
        self._places = {id(call): next(places) for call in calls}
        self._instructions = [self._instruction(call) for call in calls]
        self._target = self._source(end)
        self._note_last_readings()
        self._check_inputs(variables)

    def __call__(
        self,
        variables: Sequence[Tensor],
        inputs: Sequence[Tensor],
        instead: Mapping[Any, Any] = _NOTHING,
    ) -> Tensor:
        """Compute the target again, with the same random numbers as the first time.

        Args:
            variables: one tensor for each variable position.
            inputs: one tensor for each of :attr:`inputs`.
            instead: functions of the record, and the functions that stand in for them.

        Raises:
            RuntimeError: if a constant has been changed in place since.
        """
        for value, version in self._constants:
            if version_of(value) != version:
                raise changed_in_place(value)
        gaps = [None] * len(self._instructions)
        room: list[Any] = [*variables, *gaps, *reversed(inputs)]
        with without_autocast({variable.device for variable in variables}):
            for place, instruction in enumerate(self._instructions, len(variables)):
                room[place] = instruction.run(room, instead)
                for finished in instruction.finished:
                    room[finished] = None
        answer: Tensor = self._target.pick(room)
        return answer

    @property
    def functions(self) -> frozenset[str]:
        """The names of the functions that a replay calls, such as ``aten::mul``."""
        return frozenset(i.function._schema.name for i in self._instructions)

    def _ancestors(self, end: Read) -> list[Call]:
        """Return the calls behind a reading, in the order of their recording."""
        found: dict[int, Call] = {}
        waiting = [end]
        while waiting:
            read = waiting.pop()
            if self._is_given(read):
                continue
            if read.lost:
                raise LostHistory(read.lost)
            for call in (read.call, *read.effects):
                if id(call) in found:
                    continue
                if call.lost:
                    raise LostHistory(call.lost)
                if call.unseen and self._hold:
                    raise LostHistory(
                        "one of its tensors was written to without autograd recording "
                        "it, under torch.no_grad() or through detach() or .data; write "
                        "x + (new - x).detach() instead"
                    )
                found[id(call)] = call
                waiting.extend(_readings([*call.args, *call.kwargs.values()]))
        return sorted(found.values(), key=lambda call: call.index)

    def _is_given(self, read: Read) -> bool:
        """Say whether a reading is a variable, a constant or an input."""
        value = read.value
        if value is None:
            return read.key in self._variables
        if value.requires_grad and read.key in self._variables:
            return True
        if value.is_leaf:  # includes all that do not require grad
            return self._hold
        return self._behind

    def _instruction(self, call: Call) -> Instruction:
        args, gaps = self._template(call.args)
        kwargs: dict[str, Any] = {}
        named: list[tuple[str, Any]] = []
        for name, item in call.kwargs.items():
            (kwargs[name],), inner = self._template([item])
            named.extend((name, filling) for _, filling in inner)
        return Instruction(call, args, gaps, kwargs, named)

    def _template(
        self, items: Sequence[Any]
    ) -> tuple[list[Any], list[tuple[int, Any]]]:
        """Return arguments with gaps, and what fills each gap in a replay."""
        filled: list[Any] = list(items)
        gaps: list[tuple[int, Any]] = []
        for position, item in enumerate(items):
            if isinstance(item, list):
                part, inner = self._template(item)
                filled[position] = part
                if inner:
                    gaps.append((position, Nested(part, inner)))
            elif isinstance(item, Constant):
                self._constants.append((item.value, item.version))
                filled[position] = item.value
                if item.scratch:
                    gaps.append((position, Copy(item.value)))
            elif isinstance(item, Read | Input):
                source = self._source(item)
                if isinstance(source, Kept):
                    filled[position] = source.value
                else:
                    gaps.append((position, source))
        return filled, gaps

    def _source(self, item: Read | Input) -> Place | Kept:
        """Return where a replay finds an argument."""
        if isinstance(item, Input):
            if item.version != item.value._version:
                raise changed_in_place(item.value)
            position = self._variables.get(id(item.value))
            if position is None:
                return self._input(item.value)
            self.used.add(position)
            return Place(position)
        if not self._is_given(item):
            return Place(self._places[id(item.call)], item.slot)
        position = self._variables.get(item.key)
        if item.value is not None and not item.value.requires_grad:
            self._constants.append((item.value, item.version))
            return Kept(item.value)
        if position is None and item.value is not None:
            return self._input(item.value)
        self.used.add(position or 0)
        return Place(position or 0)

    def _input(self, value: Tensor) -> Place:
        number = self._input_numbers.setdefault(id(value), len(self.inputs))
        if number == len(self.inputs):
            self.inputs.append(value)
        return Place(-1 - number)  # the inputs end the room, in reverse order

    def _note_last_readings(self) -> None:
        last: dict[int, int] = {}
        for position, instruction in enumerate(self._instructions):
            own = self._places_from + position
            for place in (own, *instruction.places()):
                if place >= self._places_from:
                    last[place] = position
        last.pop(self._target.place if isinstance(self._target, Place) else -1, None)
        for place, position in last.items():
            self._instructions[position].finished.append(place)

    def _check_inputs(self, variables: Sequence[Tensor]) -> None:
        """Raise an error for inputs computed from the variables without a record."""
        computed = [t for t in self.inputs if t.grad_fn is not None]
        if computed and any(reached_from(computed, variables)):
            raise LostHistory(
                "it uses a tensor that depends on the weights in a way that was not "
                "recorded, such as arithmetic with an attribute of the module"
            )


def _readings(items: Sequence[Any]) -> Iterator[Read]:
    for item in items:
        if isinstance(item, Read):
            yield item
        elif isinstance(item, list):
            yield from _readings(item)


def changed_in_place(value: Tensor) -> RuntimeError:
    """Return the error for a tensor that was changed in place."""
    return RuntimeError(
        f"a tensor of shape {tuple(value.shape)} that the inner loss uses was changed "
        f"in place after the loss was computed; do not change it before backward(), or "
        f"clone it before changing it. A tensor that a module changes in forward must "
        f"be a buffer (register_buffer), because buffers are copied"
    )
