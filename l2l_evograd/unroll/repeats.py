"""What a step of a run needs to be evaluated again: random numbers and buffers."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from l2l_evograd.replay.call_state import random_state, set_random_state
from l2l_evograd.unroll.schedule import widest


class Repeats:
    """The random state and the changed buffers of every step, last in, first out.

    Args:
        devices: the devices whose global random state counts.

    Attributes:
        unlike: the steps at which ∂ℓ/∂λ was not the same the second time.
    """

    def __init__(self, devices: Iterable[torch.device]) -> None:
        self._devices = set(devices)
        self._random: list[dict[torch.device, Tensor]] = []
        self._changed: list[dict[int, Tensor]] = []
        self._marks: list[list[float]] = []
        self._back = False
        self.unlike: list[int] = []

    def begin(self) -> None:
        """Note the random state before a step."""
        states = {device: random_state(device) for device in self._devices}
        if self._random:
            last = self._random[-1]
            # A loss that draws nothing costs no memory.
            if all(torch.equal(last[device], states[device]) for device in states):
                states = last
        self._random.append(states)

    def end(self, before: dict[int, Tensor], after: dict[int, Tensor]) -> None:
        """Note the buffers that a step changed."""
        self._changed.append(
            {
                key: before[key]
                for key, buffer in after.items()
                if not torch.equal(buffer, before[key])
            }
        )

    def back(self, buffers: dict[int, Tensor]) -> None:
        """Restore the random state and ``buffers`` as before the last step noted."""
        for device, state in self._random.pop().items():
            set_random_state(device, state)
        buffers.update(self._changed.pop())

    def turn(self) -> None:
        """Begin the way back."""
        self._back = True

    def compare(self, step: int, direct: Sequence[Tensor | None]) -> None:
        """Note a mark of ∂ℓ/∂λ, or on the way back compare it with the first one.

        A λ of 0 can hide from θ that a loss is not the same the second time.
        """
        marks = [_mark(each) for each in direct if each is not None]
        if not self._back:
            self._marks.append(marks)
        elif self._marks.pop() != marks:
            self.unlike.append(step)


def _mark(values: Tensor) -> float:
    flat = values.detach().flatten()
    places = torch.arange(1, flat.numel() + 1, device=flat.device)
    return float((flat * places).sum(dtype=widest(flat.device)))
