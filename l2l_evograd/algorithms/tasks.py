"""A model that is called for all tasks of a meta-batch at once, by ``torch.func.vmap``.

The weights of all tasks are tensors with a leading task axis. One inner step on the sum
of the tasks' losses is then a step of every task: the gradient of the sum with respect
to the weights of one task is the gradient of that task's loss.
"""

import contextlib
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.func import vmap

from l2l_evograd.checks import InputError
from l2l_evograd.replay.call_state import without_fused_layers
from l2l_evograd.replay.module_copy import buffers_of, copy_structure, exchange
from l2l_evograd.replay.tensor import TruthOfVmap, is_of_vmap, tensors_in

# Inputs and labels.
Pair = tuple[Tensor, Tensor]

# A function of a module and of one task's inputs and labels: the loss and the outputs.
TaskLoss = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Any]]


def number_of_tasks(support: Pair, query: Pair) -> int:
    """Return the number of tasks of two pairs of tensors with a leading task axis.

    Raises:
        TypeError: if they are not pairs of such tensors.
        InputError: if they hold different numbers of tasks, or none.
    """
    counts: list[int] = []
    for name, pair in (("support", support), ("query", query)):
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise TypeError(
                f"expected {name} to be a pair (inputs, labels) with the tasks "
                f"stacked, got {_described(pair)}; use "
                f"(torch.stack(inputs), torch.stack(labels))"
            )
        for part, tensor in zip(("inputs", "labels"), pair, strict=True):
            if not isinstance(tensor, Tensor) or tensor.dim() == 0:
                raise TypeError(
                    f"expected the {part} of {name} to be a tensor with a leading task "
                    f"axis, got {_described(tensor)}. torch.stack() makes one of tasks "
                    f"of equal size; call task_losses for each size of tasks, or use "
                    f"clone() and adapt() in a loop"
                )
            counts.append(len(tensor))
    if len(set(counts)) > 1 or counts[0] == 0:
        raise InputError(
            f"expected inputs and labels of support and query to hold the same number "
            f"of tasks, at least 1, got {', '.join(map(str, counts))} in this order"
        )
    return counts[0]


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return type(value).__name__


class TasksModel:
    """A copy of a module that is called for several tasks, each with its own weights.

    Layers in training mode write to their buffers. Each task therefore has its own
    floating-point buffers of such layers. All tasks share the others.

    Args:
        module: the module; it is not changed.
        weights: the parameters that the tasks have their own of.
        count: the number of tasks.
    """

    def __init__(
        self, module: nn.Module, weights: Sequence[Tensor], count: int
    ) -> None:
        copies = {id(buffer): buffer.clone() for buffer in module.buffers()}
        self._copy = copy_structure(module, copies)
        self._weights = list(weights)  # what the copy holds at present
        places: dict[int, list[tuple[nn.Module, str]]] = {}
        for child in self._copy.modules():
            _refuse_hooks(child)
            for name, buffer in child.named_buffers(recurse=False):
                if buffer.is_floating_point():
                    places.setdefault(id(buffer), []).append((child, name))
        # A buffer that several layers share stays shared.
        self._places = [
            shared
            for shared in places.values()
            if any(child.training for child, _ in shared)
        ]
        buffers = [_one_of(shared) for shared in self._places]
        self._own = [buffer.expand(count, *buffer.shape) for buffer in buffers]

    def renewed_buffers(self) -> list[Tensor]:
        """Return the buffers, of which each task has its own, as new tensors.

        Autograd has saved the tensors that an earlier call read.
        """
        self._own = [buffer.clone() for buffer in self._own]
        return [*self._own, *buffers_of(self._copy)]

    def losses(
        self, loss: TaskLoss, params: Sequence[Tensor], pair: Pair
    ) -> tuple[Tensor, Any]:
        """Return the loss of every task, shape (tasks,), and the outputs.

        Args:
            loss: the loss of one task.
            params: the weights, with a leading task axis.
            pair: inputs and labels, with a leading task axis.

        Raises:
            RuntimeError: if this cannot be computed for all tasks at once.
            InputError: if the loss of a task is not a scalar.
        """

        def of_one(weights: Any, buffers: Any, inputs: Tensor, labels: Tensor) -> Any:
            pairs = zip(self._weights, weights, strict=True)
            exchange(self._copy, {id(old): new for old, new in pairs})
            self._weights = list(weights)
            for shared, buffer in zip(self._places, buffers, strict=True):
                for child, name in shared:
                    child._buffers[name] = buffer
            with TruthOfVmap():
                found = loss(self._copy, inputs, labels)
            written = [_one_of(shared) for shared in self._places]
            self._check_nothing_stored([*weights, *written])
            return *found, written

        with without_fused_layers(), _only_numbers_of_torch(), _explained():
            losses, outputs, self._own = vmap(of_one, randomness="different")(
                tuple(params), self._own, *pair
            )
        if losses.numel() != len(losses):
            raise InputError(
                f"expected the loss of a task to be a scalar, got a tensor of shape "
                f"{tuple(losses.shape[1:])}; reduce it with .mean() or .sum()"
            )
        return losses.flatten(), outputs

    def _check_nothing_stored(self, known: Sequence[Tensor]) -> None:
        own = {id(tensor) for tensor in known}
        for name, child in self._copy.named_modules():
            for key, value in vars(child).items():
                for tensor in tensors_in(value, depth=2):
                    if id(tensor) not in own and is_of_vmap(tensor):
                        place = f"{name}.{key}" if name else key
                        raise RuntimeError(
                            f"the model keeps a tensor of its call in {place}, which "
                            f"all tasks would share: {LOOP}"
                        )


def _one_of(shared: Sequence[tuple[nn.Module, str]]) -> Tensor:
    """Return the buffer that several layers hold.

    Raises:
        RuntimeError: if one of them has replaced it, so that they hold different ones.
    """
    buffers: list[Tensor] = [getattr(child, name) for child, name in shared]
    if any(buffer is not buffers[0] for buffer in buffers):
        raise RuntimeError(
            f"a layer replaced the buffer {shared[0][1]} that other layers share: "
            f"{LOOP}"
        )
    return buffers[0]


def _refuse_hooks(child: nn.Module) -> None:
    if child._backward_hooks or child._backward_pre_hooks:
        raise RuntimeError(
            f"{type(child).__name__} has a backward hook, which torch.func.vmap does "
            f"not call: remove it, or {LOOP}"
        )


# What to do where all tasks cannot be computed at once.
LOOP = "use clone() and adapt() in a loop over the tasks instead"


# Words of errors that only arise because all tasks are computed at once.
_OF_VMAP = (
    "vmap",
    "Batching rule",
    "broadcast shape",
    "data pointer of Tensor",
    "cannot register a hook",
    "does not require grad",
)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Say what to do where ``vmap`` does not support an operation."""
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in _OF_VMAP):
            raise
        raise RuntimeError(
            f"the model or the loss cannot be computed for all tasks at once: {LOOP}. "
            f"The reason is: {error}"
        ) from error


@contextlib.contextmanager
def _only_numbers_of_torch() -> Iterator[None]:
    """Raise an error if the body draws random numbers that all tasks would share."""
    numpy: Any = sys.modules.get("numpy")
    before = random.getstate(), _drawn(numpy)
    yield
    if (random.getstate(), _drawn(numpy)) != before:
        raise RuntimeError(
            f"the model or the loss draws random numbers with Python or NumPy, which "
            f"all tasks would share: draw them with torch, or {LOOP}"
        )


def _drawn(numpy: Any) -> Any:
    if numpy is None:
        return None
    _, keys, position, *others = numpy.random.get_state()
    return keys.tobytes(), position, *others
