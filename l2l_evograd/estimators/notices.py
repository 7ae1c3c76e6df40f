"""What an estimator says about its own numbers: once, and without waiting for a GPU.

An estimator looks at its numbers in its first ten calls and in every tenth later one.
Values on an accelerator are copied without waiting, and judged in a later call.
"""

import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from l2l_evograd.estimators.scaling import alike

# Called with the values that were looked at, in their order.
Judge = Callable[[list[float]], None]

_FIRST = 10
_EVERY = 10

# Number of values on their way from which the oldest is waited for.
_MOST = 64


class Notices:
    """The looks that an estimator takes at its numbers, and what it has said so far.

    Copies of an estimator share them; another process begins anew.
    """

    def __init__(self) -> None:
        self._calls = 0
        self._said: set[str] = set()
        self._rows: dict[str, int] = {}
        self._arriving: deque[tuple[Tensor, Any, Judge]] = deque()

    def due(self) -> bool:
        """Count one call, and say whether to look at its numbers."""
        self._calls += 1
        return self._calls <= _FIRST or self._calls % _EVERY == 0

    def look(self, values: Sequence[Tensor], judge: Judge) -> None:
        """Have a few numbers judged: now on a CPU, else in a later call.

        Args:
            values: scalars or vectors, of any device and dtype.
            judge: called with the values as numbers; may raise an error.
        """
        device = values[0].device
        if device.type == "cuda":
            self._judge_arrived()
            if torch.cuda.is_current_stream_capturing():
                return
        together = torch.cat([value.reshape(-1) for value in alike(values)])
        if device.type != "cuda":
            judge(together.tolist())
            return
        copy = torch.empty_like(together, device="cpu", pin_memory=True)
        copy.copy_(together, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._arriving.append((copy, event, judge))

    def say(self, kind: str, message: str) -> None:
        """Warn, once for each kind of message."""
        if kind not in self._said:
            self._said.add(kind)
            warnings.warn(message, stacklevel=2)

    def in_a_row(self, kind: str, seen: bool) -> int:
        """Count looks in a row at which something was seen; return their number."""
        self._rows[kind] = self._rows.get(kind, 0) + 1 if seen else 0
        return self._rows[kind]

    def _judge_arrived(self) -> None:
        while self._arriving:
            copy, event, judge = self._arriving[0]
            if not event.query():
                if len(self._arriving) < _MOST:
                    return
                event.synchronize()
            self._arriving.popleft()
            judge(copy.tolist())

    def __deepcopy__(self, memo: object) -> "Notices":
        return self

    def __reduce__(self) -> tuple[type["Notices"], tuple[()]]:
        return Notices, ()
