"""What a history consists of: calls, what they read, and who wrote to what.

See ``replay.py``, which records histories, and ``program.py``, which makes functions of
them.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec

from l2l_evograd.functional import Circumstances

_clock = itertools.count()

_saved_tensors_hooks = getattr(
    torch._C._autograd, "_top_saved_tensors_default_hooks", None
)


class Source:
    """Weight number ``position`` of ``owner``: where histories begin.

    ``follows``: whether what is cut off from autograd's graph keeps a history too.
    ``lost``: why the history is incomplete here, or None.
    """

    __slots__ = ("owner", "position", "follows", "lost")

    def __init__(self, owner: object, position: int, follows: bool) -> None:
        self.owner = owner
        self.position = position
        self.follows = follows
        self.lost: str | None = None


class Node:
    """One recorded call: ``function(*args, **kwargs)`` and its circumstances.

    Attributes:
        leaves: the flattened arguments; tensors as Read, Constant or Scratch.
        spec: how to unflatten them to ``(args, kwargs)``.
        index: place in the order of recording.
        follows: whether results without a gradient remember it too.
        packed: whether what autograd saved for it was handed to somebody's hooks, such
            as those of activation checkpoints.
        lost: why the history is incomplete here, or None.
    """

    __slots__ = (
        "function",
        "leaves",
        "spec",
        "circumstances",
        "index",
        "follows",
        "packed",
        "lost",
    )

    def __init__(
        self,
        function: Callable[..., Any],
        leaves: list[Any],
        spec: TreeSpec,
        circumstances: Circumstances,
    ) -> None:
        self.function = function
        self.leaves = leaves
        self.spec = spec
        self.circumstances = circumstances
        self.index = next(_clock)
        self.follows: bool = any(
            leaf.node.follows for leaf in leaves if isinstance(leaf, Read)
        )
        self.packed = packs_saved_tensors()
        self.lost: str | None = None


@dataclass(slots=True)
class Read:
    """An argument with a history: output ``slot`` of ``node`` after ``effects``."""

    node: Node | Source
    slot: int
    effects: tuple[Node, ...]
    value: Tensor | None
    version: int


@dataclass(slots=True)
class Constant:
    """A tensor argument without a history, with its version when it was read."""

    value: Tensor
    version: int


@dataclass(slots=True)
class Scratch:
    """A tensor argument that the call writes to: every replay gets a fresh copy."""

    value: Tensor


class Writes:
    """The recorded operations that wrote to one storage, in order.

    ``version``: that of the storage after the last of them. Another one means that
    somebody wrote to it unseen.
    """

    __slots__ = ("nodes", "version")

    def __init__(self, version: int) -> None:
        self.nodes: list[Node] = []
        self.version = version

    def append(self, node: Node, version: int) -> None:
        """Add an operation that left the storage at ``version``."""
        self.nodes.append(node)
        self.version = version


def packs_saved_tensors() -> bool:
    """Say whether what autograd saves now goes through ``saved_tensors_hooks``.

    True where a release of torch cannot tell.
    """
    return _saved_tensors_hooks is None or _saved_tensors_hooks(False) is not None
