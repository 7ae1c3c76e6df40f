"""Learning rate, momentum and weight decay that steps in a window share.

The value at step t of T, counted from 0, is number ⌊t N / T⌋ of N values.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from l2l_evograd.checks import InputError, as_number
from l2l_evograd.unroll.groups import Groups


class Windows:
    """One quantity of the optimizer, constant over windows of steps.

    Args:
        name: its name, for error messages.
        given: a number, which is fixed; or values to differentiate with respect to: a
            tensor of no dimension, of shape (N,), or of shape (N, groups).
        steps: T.
        groups: the groups of the weights.
        most: the largest value allowed.

    Attributes:
        learned: whether ``given`` is a tensor.
        count: number of windows N.
        grouped: whether each group has values of its own.
        width: the number of values in each window: the number of groups, or 1.

    Raises:
        TypeError: if ``given`` is neither a number nor a tensor of floats.
        InputError: for a shape that does not fit, or a value that is negative, too
            large or not finite.
    """

    def __init__(
        self,
        name: str,
        given: float | Tensor,
        steps: int,
        groups: Groups,
        most: float = math.inf,
    ) -> None:
        self.name = name
        self.steps = steps
        self.learned = isinstance(given, Tensor)
        self._groups = groups
        self._given = _tensor(given, name)
        self.grouped = self._given.dim() == 2
        self.count = 1 if self._given.dim() == 0 else self._given.shape[0]
        self.width = groups.count if self.grouped else 1
        self._check_shape(groups)
        self._table = self._rows(self._given).tolist()
        for row in self._table:
            for value in row:
                _check_value(value, name, most)

    def window(self, step: int) -> int:
        """Return the number of the window that a step is in."""
        return step * self.count // self.steps

    def first_step(self, window: int) -> int:
        """Return the first step of a window."""
        return -(-window * self.steps // self.count)

    def column(self, weight: int) -> int:
        """Return the place in its window of the value for a weight."""
        return self._groups.of[weight] if self.grouped else 0

    def columns(self) -> list[int]:
        """Return :meth:`column` of every weight."""
        return [self.column(weight) for weight in range(len(self._groups.of))]

    def at(self, step: int) -> list[float]:
        """Return the values at a step, one for each weight tensor."""
        row = self._table[self.window(step)]
        return [row[column] for column in self.columns()]

    def values(self) -> list[float]:
        """Return all values, window after window."""
        return [value for row in self._table for value in row]

    def leaf(self) -> Tensor:
        """Return the values as a leaf of autograd's graph, shape (N, width)."""
        return self._rows(self._given).clone().requires_grad_(self.learned)

    def of_leaf(self, leaf: Tensor, step: int) -> list[Tensor]:
        """Return the values at a step on the graph, one for each weight tensor."""
        row = leaf[self.window(step)].unbind()
        return [row[column] for column in self.columns()]

    def sums(self, device: torch.device) -> "Sums":
        """Return the gradient of the values, which starts at 0."""
        return Sums(self, device)

    def shaped(self, found: Tensor) -> Tensor:
        """Return a gradient in the shape, precision and place of what was given."""
        return found.detach().to(self._given).reshape(self._given.shape)

    def _rows(self, values: Tensor) -> Tensor:
        return values.reshape(self.count, self.width)

    def _check_shape(self, groups: Groups) -> None:
        shape = tuple(self._given.shape)
        if self.grouped and not groups.given:
            raise InputError(
                f"expected {self.name} of shape (N,) for N windows, got {shape}; name "
                f"the groups of its second dimension with groups="
            )
        if len(shape) > 2 or (self.grouped and shape[1] != groups.count):
            raise InputError(
                f"expected {self.name} of shape (N,), or (N, {groups.count}) for N "
                f"windows and {groups.count} groups, got {shape}"
            )
        if not 1 <= self.count <= self.steps:
            raise InputError(
                f"expected {self.name} to have 1 to {self.steps} windows, no more than "
                f"there are steps, got {self.count}"
            )


class Sums:
    """The gradient of a quantity, added up step by step over its windows."""

    def __init__(self, windows: Windows, device: torch.device) -> None:
        self._windows = windows
        shape = windows.count, windows.width
        self._found = torch.zeros(shape, dtype=widest(device), device=device)
        self._places = torch.tensor(windows.columns(), device=device)

    def add(self, step: int, parts: Sequence[Tensor]) -> None:
        """Add the derivatives at a step, one scalar for each weight tensor."""
        row = self._found[self._windows.window(step)]
        found = torch.stack([part.detach().to(row) for part in parts])
        if self._windows.width == 1:
            row += found.sum()
        else:
            row.index_add_(0, self._places, found)

    def shaped(self) -> Tensor:
        """Return the gradient in the shape of what was given."""
        return self._windows.shaped(self._found)


def steps_per_window(count: int, steps: int) -> list[int]:
    """Return how many of T steps each of N windows has; they differ by at most one."""
    edges = [-(-window * steps // count) for window in range(count + 1)]
    return [after - before for before, after in zip(edges, edges[1:], strict=False)]


def widest(device: torch.device) -> torch.dtype:
    """Return the most precise type of floats that a device has."""
    return torch.float32 if device.type == "mps" else torch.float64


def _tensor(given: object, name: str) -> Tensor:
    if isinstance(given, Tensor):
        if not given.is_floating_point():
            raise TypeError(
                f"expected {name} to be a tensor of floats, got {given.dtype}"
            )
        return given.detach()
    number = as_number(given)
    if number is None:
        raise TypeError(
            f"expected {name} to be a number, or a tensor of values to learn, got "
            f"{type(given).__name__}"
        )
    return torch.tensor(number, dtype=torch.float64)


def _check_value(value: float, name: str, most: float) -> None:
    if 0 <= value <= most and math.isfinite(value):
        return
    bounds = "at least 0" if most == math.inf else f"from 0 to {most:g}"
    raise InputError(
        f"expected every value of {name} to be finite and {bounds}, got {value!r}; "
        f"after an outer update, clamp the values, as SignDescent does, or learn their "
        f"logarithms"
    )
