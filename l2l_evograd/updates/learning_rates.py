"""Learned inner learning rates, as in Meta-SGD: checks of the argument ``lr``.

A learned rate is a tensor. It gets the exact cotangent −v ⊙ ∇_θ ℓ from every inner
step, without an additional pass. Li et al., "Meta-SGD", 2017; one rate per layer:
Antoniou et al., "How to train your MAML", ICLR 2019.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from l2l_evograd.checks import check_positive

Rates = float | Tensor | Sequence[Tensor] | nn.ParameterList


def as_attribute(lr: Any) -> float | Tensor | nn.ParameterList | list[Tensor]:
    """Return ``lr`` in the form in which an algorithm stores it.

    A sequence of parameters becomes a ``ParameterList``, so that they are registered.

    Raises:
        TypeError: if a tensor of rates, alone or in a sequence, is not floating-point.
        ValueError: if ``lr`` is not a positive number, a tensor or a sequence.
    """
    if isinstance(lr, Tensor) and lr.dim() == 0 and not lr.is_floating_point():
        lr = lr.item()
    if isinstance(lr, Tensor):
        return _checked(lr)
    if isinstance(lr, nn.ParameterList):
        return nn.ParameterList([_checked(rate) for rate in lr])
    if isinstance(lr, list | tuple) and lr:
        rates = [_checked(rate) for rate in lr]
        whole = all(isinstance(rate, nn.Parameter) for rate in rates)
        return nn.ParameterList(rates) if whole else rates
    return check_positive(lr, "lr")


def matched(
    lr: Any, names: Callable[[], Sequence[str]], params: Sequence[Tensor]
) -> float | list[Tensor]:
    """Return ``lr`` as a number, or as one tensor for each of ``params``.

    Args:
        lr: anything that :func:`as_attribute` takes; the user may have replaced it.
        names: function that returns the names of ``params``, for error messages.
        params: the weights.

    Raises:
        TypeError, ValueError: as :func:`as_attribute`.
        ValueError: if there is not one rate for each parameter, or if a rate does not
            broadcast to its parameter.
    """
    if not isinstance(lr, nn.ParameterList | Tensor | list):
        lr = as_attribute(lr)
    if isinstance(lr, float):
        return lr
    rates = [lr] * len(params) if isinstance(lr, Tensor) else list(lr)
    if len(rates) != len(params):
        raise ValueError(
            f"expected lr to hold one tensor for each of the {len(params)} adapted "
            f"parameters, got {len(rates)}; the adapted ones are {', '.join(names())}"
        )
    for position, (rate, param) in enumerate(zip(rates, params, strict=True)):
        if not _broadcasts(rate.shape, param.shape):
            raise ValueError(
                f"expected the learning rate of {names()[position]} to have its shape "
                f"{tuple(param.shape)} or one that broadcasts to it, got "
                f"{tuple(rate.shape)}"
            )
    return rates


def _checked(rate: Any) -> Tensor:
    if not isinstance(rate, Tensor) or not rate.is_floating_point():
        kind = rate.dtype if isinstance(rate, Tensor) else type(rate).__name__
        raise TypeError(
            f"expected lr to be a positive number or tensors of floats, got {kind}"
        )
    return rate


def _broadcasts(shape: torch.Size, target: torch.Size) -> bool:
    try:
        return torch.broadcast_shapes(shape, target) == target
    except RuntimeError:
        return False
