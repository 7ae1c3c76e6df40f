"""Norms and products that neither overflow nor underflow, by powers of two.

A hypergradient is linear in the cotangent v of the updated weights, so that v may be
divided by any p and the result multiplied by it. With p a power of two both are exact:
where v·v was in the range of its dtype, no bit of the result changes. p stays a tensor
on its device, so that nothing is read.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the real dtype for sums and factors: float32 for half precision."""
    real = dtype.to_real()
    return torch.float32 if real.itemsize < 4 else real


def sum_dtype(tensor: Tensor) -> torch.dtype:
    """Return the dtype for sums of a tensor, which may be complex."""
    return tensor.dtype if tensor.is_complex() else wide(tensor.dtype)


def power_below(tops: Tensor) -> Tensor:
    """Return the largest power of two that is at most ``tops``, entry by entry.

    It is 1 for 0, and is kept within 2^±126 (float32) or 2^±1022 (float64), so that it
    has an inverse.
    """
    mantissa, _ = torch.frexp(tops)
    tiny = torch.finfo(tops.dtype).tiny
    power = (tops / (2 * mantissa)).clamp(tiny, 1 / tiny)
    return torch.where(tops == 0, 1.0, power)


def power_of_number(value: float) -> float:
    """Return the largest power of two that is at most ``value``, a positive number."""
    return math.ldexp(0.5, math.frexp(value)[1])


def largest(tensors: Sequence[Tensor], per_task: bool = False) -> Tensor:
    """Return the largest absolute value of all tensors together.

    Args:
        tensors: the tensors.
        per_task: whether they have a leading task axis. If so, the result has one entry
            for each task, shape (tasks,).
    """
    filled = [tensor for tensor in tensors if tensor.numel()]
    if not filled:
        shape = tensors[0].shape[:1] if per_task else ()
        return torch.zeros(shape, device=tensors[0].device)
    if per_task:
        tops = [
            torch.linalg.vector_norm(t.reshape(len(t), -1), math.inf, 1) for t in filled
        ]
    else:
        tops = list(torch._foreach_norm(filled, math.inf))
    return torch.stack(alike(tops)).amax(0)


def lengths(tensors: Sequence[Tensor], per_task: bool = False) -> Tensor:
    """Return the Euclidean norm of all tensors together, on the first one's device.

    The tensors should come from :func:`normalised` if their range is not known.

    Args:
        tensors: the tensors.
        per_task: whether they have a leading task axis. If so, the result has one norm
            for each task, shape (tasks,).
    """
    if per_task:
        norms = [
            torch.linalg.vector_norm(t.reshape(len(t), -1), dim=1, dtype=sum_dtype(t))
            for t in tensors
        ]
    elif any(t.dtype.itemsize < 4 for t in tensors):
        norms = [torch.linalg.vector_norm(t, dtype=sum_dtype(t)) for t in tensors]
    else:
        norms = list(torch._foreach_norm(list(tensors)))
    return torch.linalg.vector_norm(torch.stack(alike(norms)), dim=0)


def normalised(
    tensors: Sequence[Tensor], per_task: bool = False
) -> tuple[list[Tensor], Tensor]:
    """Return v/p and p, a power of two near the largest |v_i|.

    Args:
        tensors: v.
        per_task: whether the tensors have a leading task axis, and p one entry for each
            task.

    Cost: two sweeps over v.
    """
    power = power_below(largest(tensors, per_task))
    return times(tensors, 1 / power), power


def times(tensors: Sequence[Tensor], scale: Tensor) -> list[Tensor]:
    """Return ``scale * tensors`` in their own dtypes; one scale, or one per task."""
    if scale.dim() == 0 and all(t.device == scale.device for t in tensors):
        kinds = {wide(t.dtype) for t in tensors}
        if len(kinds) == 1:
            return list(torch._foreach_mul(list(tensors), scale.to(kinds.pop())))
    return [_times(tensor, scale) for tensor in tensors]


def in_turn(tensor: Tensor, *scales: Tensor | float) -> Tensor:
    """Return the tensor times one scale after the other, in its own dtype.

    The product of the scales may be out of range where the result is not. Half
    precision is multiplied in float32.
    """
    found = tensor.to(sum_dtype(tensor))
    for scale in scales:
        if isinstance(scale, Tensor):
            found = found * spread(scale, found)
        elif scale != 1:
            # A number may be out of the range of the dtype where its root is not.
            half = power_of_number(scale**0.5)
            found = found * half * (scale / half)
    return found.to(tensor.dtype)


def spread(scale: Tensor, tensor: Tensor) -> Tensor:
    """Return ``scale``, shape () or (tasks,), so that it multiplies ``tensor``."""
    scale = scale.to(tensor.device, tensor.dtype.to_real())
    return scale.reshape(scale.shape + (1,) * (tensor.dim() - scale.dim()))


def _times(tensor: Tensor, scale: Tensor) -> Tensor:
    if tensor.dtype.itemsize > 2:
        return tensor * spread(scale, tensor)
    # The scale itself may be out of the range of half precision.
    wider = tensor.float()
    return (wider * spread(scale, wider)).to(tensor.dtype)


def alike(numbers: Sequence[Tensor]) -> list[Tensor]:
    """Return real numbers on the first one's device, in the widest of their dtypes.

    That is float32 at least.
    """
    kinds = {wide(number.dtype) for number in numbers}
    kind = torch.float64 if torch.float64 in kinds else torch.float32
    device = numbers[0].device
    return [number.detach().to(device, kind) for number in numbers]
