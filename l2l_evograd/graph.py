"""Walks over autograd's graph: what a tensor was computed from.

Nothing is computed; a walk costs a few microseconds for each function on the way.
"""

from collections.abc import Iterable, Sequence

from torch import Tensor
from torch.autograd.graph import Node as Function


def reaches(tensor: Tensor, targets: Iterable[Tensor]) -> list[bool]:
    """Say which of ``targets`` the autograd graph of ``tensor`` leads to.

    Cost: one walk over the graph between them; nothing is computed.
    """
    wanted = list(targets)
    behind = set(functions_behind([tensor]))
    leaves = {id(variable) for variable in _variables(behind)}
    return [
        target is tensor or target.grad_fn in behind or id(target) in leaves
        for target in wanted
    ]


def leaves_behind(tensor: Tensor, stops: Iterable[Tensor]) -> list[Tensor]:
    """Return the leaves that ``tensor`` was computed from, not looking past ``stops``.

    Cost: one walk over the graph.
    """
    ends = [stop.grad_fn for stop in stops if stop.grad_fn is not None]
    return _variables(functions_behind([tensor], ends))


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


def _variables(functions: Iterable[Function]) -> list[Tensor]:
    """Return the leaves among what accumulates gradients."""
    variables = [getattr(function, "variable", None) for function in functions]
    return [variable for variable in variables if variable is not None]
