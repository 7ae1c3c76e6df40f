"""Walks over autograd's graph: what a tensor was computed from.

A walk computes nothing, and costs a few microseconds for each function that it visits.
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
        ends: functions at which the walk stops.
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
    """Say whether a tensor was computed by a function from ``torch.compile``.

    The backward pass of such a function cannot be differentiated, and raises an error
    with ``create_graph=True``.

    Cost: one walk over the graph.
    """
    names = {function.name() for function in functions_behind([tensor])}
    return "CompiledFunctionBackward" in names


def hands_out_saved_tensors(tensors: Iterable[Tensor]) -> bool:
    """Say whether hooks provide any tensor that autograd saved behind ``tensors``.

    Activation checkpoints use such hooks: they compute a saved tensor again when it is
    needed, with their module in the state of that time. The result is True if the torch
    release does not tell.

    Cost: one walk over the graph, and one look at every saved tensor.
    """
    for function in functions_behind(tensors):
        for name in _saved_names(type(function), function.name()):
            try:
                saved = getattr(function, name, ())
            except RuntimeError as error:
                if "freed" not in str(error):
                    raise
                continue  # an earlier backward() has freed what was saved
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
    derivative of their backward pass; autograd puts an error node in its place.

    Cost: one walk over the graph.
    """
    return not any(
        function.name() in ("torch::autograd::NotImplemented", "torch::autograd::Error")
        for function in functions_behind(gradients)
    )


def graph_bytes(tensors: Iterable[Tensor], ends: Iterable[Tensor] = ()) -> int:
    """Estimate how many bytes of memory the graph behind tensors holds.

    The estimate is the size of all results on the graph, without leaves, because most
    functions save one result.

    Args:
        tensors: where the graph begins.
        ends: tensors at which it ends, such as the weights before a step.

    Cost: one walk over the graph.
    """
    total = 0
    last = [end.grad_fn for end in ends if end.grad_fn is not None]
    for function in functions_behind(tensors, last):
        if function.next_functions:
            for result in function._input_metadata:
                total += math.prod(result.shape) * result.dtype.itemsize
    return total


def _variables(functions: Iterable[Function]) -> list[Tensor]:
    """Return the leaf tensors of the functions that accumulate gradients."""
    variables = [getattr(function, "variable", None) for function in functions]
    return [variable for variable in variables if variable is not None]
