"""Walks over autograd's graph: what a tensor was computed from.

Nothing is computed; a walk costs a few microseconds for each function on the way.
"""

import functools
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import Node as Function


def reaches(tensor: Tensor, targets: Sequence[Tensor]) -> list[bool]:
    """Say which of ``targets`` the autograd graph of ``tensor`` leads to.

    Cost: one walk over the graph between them; nothing is computed.
    """
    return [
        target is tensor or hit
        for target, hit in zip(targets, reached_from([tensor], targets), strict=True)
    ]


def reached_from(tensors: Iterable[Tensor], targets: Sequence[Tensor]) -> list[bool]:
    """Say which of ``targets`` the tensors were computed from.

    Cost: one walk over the graph behind the tensors.
    """
    behind = set(functions_behind(tensors))
    leaves = {id(variable) for variable in _variables(behind)}
    return [
        (target.grad_fn is not None and target.grad_fn in behind)
        or id(target) in leaves
        for target in targets
    ]


def functions_behind(
    tensors: Iterable[Tensor], ends: Sequence[Function] = ()
) -> list[Function]:
    """Return the autograd functions behind tensors, each once.

    Args:
        tensors: where the walk begins.
        ends: functions that it does not go past.
    """
    starts = dict.fromkeys(tensor.grad_fn for tensor in tensors)
    waiting = [function for function in starts if function is not None]
    seen = {*waiting, *ends}
    found = []
    while waiting:
        function = waiting.pop()
        found.append(function)
        for following, _ in function.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return found


def is_compiled(tensor: Tensor) -> bool:
    """Say whether a tensor came through a function that ``torch.compile`` returned.

    Its backward pass cannot be differentiated, and gives an error if it is asked for a
    graph.

    Cost: one walk over the graph.
    """
    names = {function.name() for function in functions_behind([tensor])}
    return "CompiledFunctionBackward" in names


def hands_out_saved_tensors(tensors: Iterable[Tensor]) -> bool:
    """Say whether what autograd saved for tensors is in the hands of hooks.

    Activation checkpoints compute it again when it is asked for, from their module as
    it is then. True where a release of torch cannot tell.

    Cost: one walk over the graph, and a look at all that each function saved.
    """
    for function in functions_behind(tensors):
        for name in _saved_names(type(function), function.name()):
            saved = getattr(function, name, ())
            for item in saved if isinstance(saved, tuple) else (saved,):
                if getattr(item, "unpack_hook", item) is not None:
                    return True
    return False


@functools.cache
def _saved_names(kind: type, name: str) -> tuple[str, ...]:
    return tuple(n for n in dir(kind) if n.startswith("_raw_saved"))


def in_backward() -> bool:
    """Say whether autograd is in the middle of a backward pass."""
    return torch._C._current_graph_task_id() != -1


def differentiable_again(gradients: Sequence[Tensor]) -> bool:
    """Say whether gradients made with ``create_graph`` can be differentiated.

    Fused kernels, of attention and of recurrent layers on an accelerator, have no
    derivative of their backward pass; autograd puts an error in its place.

    Cost: one walk over the graph.
    """
    return not any(
        function.name() in ("torch::autograd::NotImplemented", "torch::autograd::Error")
        for function in functions_behind(gradients)
    )


def graph_bytes(tensors: Iterable[Tensor]) -> int:
    """Return about how much memory the graph behind tensors holds.

    The sizes of all results on the way, leaves aside: most functions save one of them.

    Cost: one walk over the graph.
    """
    total = 0
    for function in functions_behind(tensors):
        if function.next_functions:
            for result in function._input_metadata:
                total += math.prod(result.shape) * result.dtype.itemsize
    return total


def _variables(functions: Iterable[Function]) -> list[Tensor]:
    """Return the leaves among what accumulates gradients."""
    variables = [getattr(function, "variable", None) for function in functions]
    return [variable for variable in variables if variable is not None]
