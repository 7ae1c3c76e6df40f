"""Points of learners' ways, kept in bounded memory and visited again later."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from l2l_evograd.algorithms.base_learner import BaseLearner
from l2l_evograd.algorithms.warpgrad import WarpGrad
from l2l_evograd.checks import InputError, check_count
from l2l_evograd.seeds import default_generator


@dataclass(frozen=True)
class _Point:
    names: list[str]
    weights: list[Tensor]
    task: Any


class TrajectoryBuffer:
    """Weights that learners passed through, and the tasks they were learning.

    For WarpGrad offline: adapt first, with φ fixed, and learn φ from the points
    afterwards, one update for each point and two fresh batches of its task:

        buffer = TrajectoryBuffer(capacity=1000)
        for task in tasks:
            learner = meta.clone(first_order=True)
            for _ in range(K):
                buffer.add(learner, task)
                learner.adapt(loss(learner(x), y))
        for learner, task in buffer.replay(meta):
            learner.adapt(loss(learner(x), y))
            optimizer.zero_grad()
            loss(learner(x_query), y_query).backward()
            optimizer.step()

    If more points are added than fit, the buffer holds a uniform random sample of them
    (reservoir sampling). Fewer points raise the variance of the meta-gradient, and do
    not bias it. Points that a replay left behind count as one point each afterwards.

    Args:
        capacity: the largest number of points.
        device: where the weights are stored.
        generator: generator of the sample and of the order; it is on the CPU. None: a
            new one, seeded from torch's global state without drawing from it.

    Raises:
        ValueError: for a capacity below 1.

    Cost: memory of ``capacity`` copies of the adapted weights.

    Source: Flennerhag et al., "Meta-Learning with Warped Gradient Descent", ICLR 2020,
    Algorithm 2. Vitter, "Random Sampling with a Reservoir", ACM TOMS 1985, algorithm R.
    """

    def __init__(
        self,
        capacity: int,
        device: torch.device | str = "cpu",
        generator: torch.Generator | None = None,
    ) -> None:
        self.capacity = check_count(capacity, "capacity")
        self.device = torch.device(device)
        self.generator = default_generator() if generator is None else generator
        self._points: list[_Point] = []
        self._seen = 0

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self._points)

    def add(self, learner: BaseLearner, task: Any) -> None:
        """Store where a learner is.

        Args:
            learner: a clone; call this before the ``adapt`` whose start is wanted.
            task: anything from which two batches of the task can be drawn later. The
                buffer keeps a reference.

        Raises:
            TypeError: if this is not a clone.

        Cost: a copy of the adapted weights, unless the point is not in the sample.
        """
        if not (isinstance(learner, BaseLearner) and learner._is_learner):
            kind = "the original" if isinstance(learner, BaseLearner) else type(learner)
            raise TypeError(
                f"expected a learner, got {kind}; add the result of meta.clone()"
            )
        self._seen += 1
        place = len(self._points)
        if place == self.capacity:
            place = self._below(self._seen)
            if place >= self.capacity:
                return
        weights = [
            torch.empty_like(w, device=self.device, requires_grad=False).copy_(w)
            for w in (weight.detach() for weight in learner._weights())
        ]
        self._points[place : place + 1] = [_Point(learner._names(), weights, task)]

    def replay(self, meta: WarpGrad) -> Iterator[tuple[WarpGrad, Any]]:
        """Take all points out, in random order.

        Args:
            meta: the algorithm. Each learner is a clone of it with its present warp
                parameters, at the stored weights.

        Returns:
            An iterator over learners and their tasks. The buffer is empty afterwards;
            points that were not drawn because the loop ended early stay in it.

        Raises:
            ValueError: if the buffer is empty, or if the stored weights do not fit.
        """
        if not self._points:
            raise InputError(
                "the buffer is empty: expected at least one point; call "
                "add(learner, task) before each adapt() of a trajectory"
            )
        return self._drawn(meta)

    def clear(self) -> None:
        """Remove all points."""
        self._points.clear()
        self._seen = 0

    def _drawn(self, meta: WarpGrad) -> Iterator[tuple[WarpGrad, Any]]:
        while self._points:
            learner = meta.clone()
            place = self._below(len(self._points))
            self._move(learner, self._points[place])
            point = self._points.pop(place)
            self._seen = len(self._points)
            yield learner, point.task

    def _move(self, learner: WarpGrad, point: _Point) -> None:
        """Move a new learner to stored weights."""
        old, weights = learner._weights(), point.weights
        same = [w.shape for w in weights] == [w.shape for w in old]
        if not same or point.names != learner._names():
            raise InputError(
                f"expected points of this model with {len(old)} adapted parameters, "
                f"got one of another model or with other warp parameters "
                f"({len(weights)} parameters); clear() the buffer"
            )
        pairs = zip(weights, old, strict=True)
        learner._put([w.to(o).requires_grad_() for w, o in pairs], old)
        learner._way = None  # this way does not begin at the initial weights

    def _below(self, stop: int) -> int:
        return int(torch.randint(stop, (), generator=self.generator))
