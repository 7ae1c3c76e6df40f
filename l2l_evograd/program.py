"""A history made into a function: the part of it that depends on chosen tensors.

:class:`Program` walks back from a :class:`~l2l_evograd.replay.ReplayTensor` to what it
was computed from and keeps the calls that depend on the *variables*, usually the
learner's weights. What else goes in and requires grad becomes an *input*: the
hyperparameters, and any tensor computed elsewhere (features of a frozen body, weights
from another network). Cutting there makes the program local: its derivatives with
respect to variables and inputs never reach into the caller's autograd graph.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from l2l_evograd.functional import Circumstances, preserved_random_state
from l2l_evograd.history import Constant, Node, Read, Scratch, Source
from l2l_evograd.replay import ReplayTensor, leaf_of, plain


@dataclass(frozen=True, slots=True)
class _Variable:
    position: int


@dataclass(frozen=True, slots=True)
class _Input:
    position: int


@dataclass(frozen=True, slots=True)
class _CopiedInput:
    position: int  # of an input that the call writes to


@dataclass(frozen=True, slots=True)
class _Result:
    node: int
    slot: int


@dataclass(slots=True)
class _Instruction:
    function: Any
    leaves: list[Any]
    spec: TreeSpec
    circumstances: Circumstances
    finished: tuple[int, ...] = ()  # results that nobody reads after this call


class LostHistory(TypeError):
    """A tensor cannot be computed again with other weights."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the loss does not remember how it was computed: {reason}. Expected a "
            f"tensor computed from learner(...) with torch functions; pass a callable "
            f"instead, as in adapt(lambda learner: loss_fn(learner(x), y))"
        )


class Program:
    """The computation of one tensor, as a function of variables and inputs.

    Args:
        target: the tensor to compute again.
        owner: whose weights are variables; the i-th weight is variable i.
        tensors: ``id(tensor)`` -> variable position, for variables that are ordinary
            tensors, such as hyperparameters.
        hold_detached: keep what ``.detach()`` or ``torch.no_grad()`` cut off at the
            value that it had when it was recorded.

    Attributes:
        inputs: the tensors that the program depends on besides its variables and that
            require grad, each once.
        used: the positions of the variables that occur.
        packed: as :class:`~l2l_evograd.history.Node` has it, for any call in it.

    Raises:
        LostHistory: if part of the history is missing.
    """

    def __init__(
        self,
        target: ReplayTensor,
        owner: object = None,
        tensors: Mapping[int, int] | None = None,
        hold_detached: bool = False,
    ) -> None:
        self._owner = owner
        self._hold_detached = hold_detached
        self._tensors = tensors or {}
        self.inputs: list[Tensor] = []
        self.used: set[int] = set()
        self._input_positions: dict[int, int] = {}
        reading = leaf_of(target)
        nodes = self._ancestors(reading)
        self._live = self._dependent(nodes)
        self._order = {
            id(node): position
            for position, node in enumerate(n for n in nodes if id(n) in self._live)
        }
        self._instructions = [
            self._instruction(node) for node in nodes if id(node) in self._live
        ]
        self.packed = any(node.packed for node in nodes if id(node) in self._live)
        self._target = self._operand(reading)
        self._note_last_reads()

    def __call__(self, variables: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """Compute the target anew; random state, autocast and buffers as at first.

        Args:
            variables: one tensor for each variable position.
            inputs: one tensor for each of :attr:`inputs`.
        """
        results: dict[int, Any] = {}

        def value(operand: Any) -> Any:
            if isinstance(operand, _Variable):
                return variables[operand.position]
            if isinstance(operand, _Input):
                return inputs[operand.position]
            if isinstance(operand, _CopiedInput):
                return inputs[operand.position].clone()
            if isinstance(operand, _Result):
                return results[operand.node][operand.slot]
            if isinstance(operand, Scratch):
                return operand.value.clone()
            if isinstance(operand, Constant):
                return _unchanged(operand.value, operand.version)
            return operand

        devices = {d for i in self._instructions for d in i.circumstances.random}
        with preserved_random_state(devices):
            for position, instruction in enumerate(self._instructions):
                leaves = [value(leaf) for leaf in instruction.leaves]
                args, kwargs = tree_unflatten(leaves, instruction.spec)
                with instruction.circumstances.again(restore_random=False):
                    outputs = instruction.function(*args, **kwargs)
                results[position] = {
                    -1: leaves[0] if leaves else None,
                    **dict(enumerate(tree_flatten(outputs)[0])),
                }
                for done in instruction.finished:
                    del results[done]
        answer: Tensor = value(self._target)
        return answer

    def calls(self, kind: type) -> bool:
        """Say whether the program calls a function of this type."""
        return any(isinstance(i.function, kind) for i in self._instructions)

    def _dependent(self, nodes: Sequence[Node]) -> set[int]:
        """Return the ids of the nodes that have to run again."""
        live: set[int] = set()
        for node in nodes:  # in order of recording: what is read comes first
            if any(self._is_live(leaf, live) for leaf in node.leaves):
                live.add(id(node))
        # What a live call writes to must be computed anew as well.
        for node in reversed(nodes):
            if id(node) not in live:
                continue
            for leaf in node.leaves:
                if isinstance(leaf, Read) and leaf.value is None:
                    live.update(id(n) for n in (leaf.node, *leaf.effects))
        return live

    def _is_live(self, leaf: Any, live: set[int]) -> bool:
        if isinstance(leaf, Constant):
            return id(leaf.value) in self._tensors
        if not isinstance(leaf, Read):
            return False
        if self._held(leaf):
            return False
        if isinstance(leaf.node, Source):
            return leaf.node.owner is self._owner
        # A tensor written to since it was read has no value to stand in for it.
        return (
            leaf.value is None
            or id(leaf.node) in live
            or any(id(effect) in live for effect in leaf.effects)
        )

    def _instruction(self, node: Node) -> _Instruction:
        if node.lost is not None:
            raise LostHistory(node.lost)
        leaves = [self._operand(leaf) for leaf in node.leaves]
        function = node.function
        if self._hold_detached:
            function = getattr(function, "with_held", function)
        return _Instruction(function, leaves, node.spec, node.circumstances)

    def _operand(self, leaf: Any) -> Any:
        if isinstance(leaf, Constant):
            if id(leaf.value) in self._tensors:
                return self._variable(self._tensors[id(leaf.value)])
            if not leaf.value.requires_grad:
                return leaf
            return self._input(_unchanged(leaf.value, leaf.version))
        if isinstance(leaf, Scratch) and leaf.value.requires_grad:
            return _CopiedInput(self._input(leaf.value).position)
        if not isinstance(leaf, Read):
            return leaf
        node = leaf.node
        if isinstance(node, Source) and node.owner is self._owner:
            if node.lost is not None:
                raise LostHistory(node.lost)
            return self._variable(node.position)
        if id(node) in self._order and not self._held(leaf):
            return _Result(self._order[id(node)], leaf.slot)
        if leaf.value is None:
            raise LostHistory("it was written to in place")
        _unchanged(leaf.value, leaf.version)
        if leaf.value.requires_grad:
            return self._input(leaf.value)
        return Constant(plain(leaf.value), leaf.version)

    def _ancestors(self, reading: Read) -> list[Node]:
        """Return the nodes behind a reading, in the order of their recording."""
        found: dict[int, Node] = {}
        waiting: list[Node | Source] = [reading.node, *reading.effects]
        while waiting:
            node = waiting.pop()
            if isinstance(node, Source) or id(node) in found:
                continue
            found[id(node)] = node
            for leaf in node.leaves:
                if isinstance(leaf, Read) and not self._held(leaf):
                    waiting.append(leaf.node)
                    waiting.extend(leaf.effects)
        return sorted(found.values(), key=lambda node: node.index)

    def _held(self, leaf: Read) -> bool:
        """Say whether an argument counts as a constant at its present value.

        That is what autograd takes every tensor for that does not require grad. One
        that was written to since it was read has no present value to be held at.
        """
        value = leaf.value
        return (
            self._hold_detached
            and value is not None
            and not value.requires_grad
            and value._version == leaf.version
            and isinstance(leaf.node, Node)
        )

    def _variable(self, position: int) -> _Variable:
        self.used.add(position)
        return _Variable(position)

    def _input(self, value: Tensor) -> _Input:
        key = id(value)
        if key not in self._input_positions:
            self._input_positions[key] = len(self.inputs)
            self.inputs.append(value)
        return _Input(self._input_positions[key])

    def _note_last_reads(self) -> None:
        last: dict[int, int] = {}
        for position, instruction in enumerate(self._instructions):
            last[position] = position
            for leaf in instruction.leaves:
                if isinstance(leaf, _Result):
                    last[leaf.node] = position
        if isinstance(self._target, _Result):
            last.pop(self._target.node)
        for position, instruction in enumerate(self._instructions):
            instruction.finished = tuple(n for n, p in last.items() if p == position)


def _unchanged(value: Tensor, version: int) -> Tensor:
    if not value.is_inference() and value._version != version:
        raise RuntimeError(
            f"a tensor of shape {tuple(value.shape)} that the inner loss uses was "
            f"changed in place after the loss was computed; keep it as it was until "
            f"backward(), or clone it before changing it"
        )
    return value
