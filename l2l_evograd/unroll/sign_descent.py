"""``SignDescent``: an outer optimizer that uses the signs of hypergradients only."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from l2l_evograd.checks import InputError, check_not_negative, check_positive


class SignDescent(Optimizer):
    """Sign descent with steps that shrink where the sign turns, inside bounds.

    For each value λ with gradient G and step size γ, which starts at ``lr``:

        γ ← decay γ  if sign G turned,   λ ← clamp(λ − γ sign G, lower, upper).

    Only the sign of a hypergradient is used, so its size, which can vary by orders of
    magnitude along a run, does not matter. Use it on the tensors given to
    :func:`~l2l_evograd.unroll.forward_mode` and its neighbours::

        lr = torch.full((8,), 0.1)
        optimizer = SignDescent([lr], lr=0.1)
        for _ in range(10):
            lr.grad = forward_mode(..., lr=lr, steps=200).schedule["lr"]
            optimizer.step()

    Args:
        params: tensors, or groups of them with settings of their own.
        lr: γ at the start, in units of λ.
        decay: the factor of γ when the sign turns, above 0 and at most 1.
        lower: the least value of λ.
        upper: the largest value of λ.

    Raises:
        ValueError: if a setting is out of range. In ``step()``, if a gradient is not
            finite: the run diverged, and its signs mean nothing.

    Cost: a few operations on each value; a sign and a factor are kept for each.

    Source: Micaelli, Storkey, NeurIPS 2021, their outer optimizer (decay 0.5; lr 0.1
        for learning rates and momentum, 3e-4 for weight decay); the bounds are ours.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.1,
        decay: float = 0.5,
        lower: float = 0.0,
        upper: float = math.inf,
    ) -> None:
        defaults = {"lr": lr, "decay": decay, "lower": lower, "upper": upper}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add tensors, with settings of their own if given."""
        _check({**self.defaults, **param_group})
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state that was saved."""
        for group in state_dict["param_groups"]:
            _check(group)
        super().load_state_dict(state_dict)

    @torch.no_grad()
    def step(  # type: ignore[override]  # torch has two overloads of it
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """Move every tensor that has a gradient; return what ``closure`` returned."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        moved = [
            (tensor, tensor.grad, group)
            for group in self.param_groups
            for tensor in group["params"]
            if tensor.grad is not None
        ]
        for tensor, grad, _ in moved:  # all of them before one moves
            if not bool(torch.isfinite(grad).all() and torch.isfinite(tensor).all()):
                raise InputError(
                    "expected finite values and hypergradients, got some that are not: "
                    "the training run diverged; start from smaller learning rates or "
                    "lower upper"
                )
        for tensor, grad, group in moved:
            self._move(tensor, grad, group)
        return value

    def _move(self, tensor: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[tensor]
        if not state:
            state["sign"] = torch.zeros_like(tensor)
            state["factor"] = torch.ones_like(tensor)
        sign = grad.sign()
        turned = sign * state["sign"] < 0
        state["factor"][turned] *= group["decay"]
        state["sign"] = sign
        tensor.sub_(sign * state["factor"] * group["lr"])
        tensor.clamp_(group["lower"], group["upper"])


def _check(group: dict[str, Any]) -> None:
    check_not_negative(group["lr"], "lr")
    if check_positive(group["decay"], "decay") > 1:
        raise InputError(f"expected decay to be at most 1, got {group['decay']!r}")
    if not group["lower"] <= group["upper"]:
        raise InputError(
            f"expected lower to be at most upper, got {group['lower']!r} and "
            f"{group['upper']!r}"
        )
