"""The order of the tangents in forward mode: those that start first come first.

A tangent dθ/dh is 0 until the first step that h takes part in. Ordered by that step,
the tangents that are not 0 are always the first k of all.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from l2l_evograd.checks import InputError, check_count
from l2l_evograd.unroll.initial import Initial
from l2l_evograd.unroll.schedule import Windows

# Tangents take 2 numbers for each weight and each of so many hyperparameters.
LIMIT = 1000


class Column(NamedTuple):
    """One scalar h that the run is differentiated with respect to.

    Attributes:
        kind: ``"hyperparameters"``, ``"init"`` or the name of a scheduled quantity.
        row: number of its tensor among λ, or of its window.
        place: position in that tensor, or the place in the window.
        enters: the first step at which dθ/dh can become other than 0.
        moves: the first step at which the Hessian meets a dθ/dh that is not 0.
    """

    kind: str
    row: int
    place: int
    enters: int
    moves: int


class Columns:
    """All scalars of a run, in the order in which their tangents start.

    Args:
        hyperparameters: λ.
        initial: the initial weights.
        schedule: the scheduled quantities by name.
        limit: the largest number of scalars.

    Attributes:
        count: number of scalars.
        inside: number of those in the losses; they come first.

    Raises:
        InputError: if there are more than ``limit``.
    """

    def __init__(
        self,
        hyperparameters: Sequence[Tensor],
        initial: Initial,
        schedule: Mapping[str, Windows],
        limit: int,
    ) -> None:
        check_count(limit, "limit")
        self._shapes = [tensor.shape for tensor in hyperparameters]
        learned = {k: w for k, w in schedule.items() if w.learned}
        self.inside = sum(tensor.numel() for tensor in hyperparameters)
        self.count = self.inside + initial.width
        self.count += sum(w.count * w.width for w in learned.values())
        if self.count > limit:
            raise InputError(
                f"forward mode keeps two tensors of the size of the weights for every "
                f"hyperparameter: expected at most limit={limit} hyperparameters, got "
                f"{self.count}; use reversible_sgd, whose cost does not depend on "
                f"their number, or raise limit"
            )
        found = [
            Column("hyperparameters", row, place, 0, 0)
            for row, tensor in enumerate(hyperparameters)
            for place in range(tensor.numel())
        ]
        found += [Column("init", 0, place, 0, 0) for place in range(initial.width)]
        rest = [
            Column(kind, row, place, first, first + 1)
            for kind, windows in learned.items()
            for row in range(windows.count)
            for place in range(windows.width)
            for first in [windows.first_step(row)]
        ]
        self._all = [*found, *sorted(rest, key=lambda column: column.enters)]
        self._numbers = {c[:3]: number for number, c in enumerate(self._all)}

    def number(self, kind: str, row: int, place: int) -> int:
        """Return the number of a scalar's column."""
        return self._numbers[kind, row, place]

    def entered(self, step: int) -> int:
        """Return how many tangents can be other than 0 after a step."""
        return sum(column.enters <= step for column in self._all)

    def moving(self, step: int) -> int:
        """Return how many tangents the Hessian of a step has to be multiplied with."""
        return sum(column.moves <= step for column in self._all)

    def of_tensor(self, row: int) -> slice:
        """Return the columns of one tensor of λ."""
        sizes = [shape.numel() for shape in self._shapes]
        return slice(sum(sizes[:row]), sum(sizes[: row + 1]))

    def of_kind(self, kind: str, windows: Windows) -> list[int]:
        """Return the columns of a scheduled quantity, window after window."""
        return [
            self.number(kind, row, place)
            for row in range(windows.count)
            for place in range(windows.width)
        ]
