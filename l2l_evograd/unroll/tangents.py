"""The tangents of forward mode: dθ/dh for every scalar h, carried along the run."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from l2l_evograd.checks import check_count
from l2l_evograd.unroll.columns import Columns
from l2l_evograd.unroll.initial import Initial
from l2l_evograd.unroll.products import Products
from l2l_evograd.unroll.result import RunGradients, finished
from l2l_evograd.unroll.schedule import Windows, widest
from l2l_evograd.unroll.training_run import TrainingRun


class Tangents:
    """Z = dθ/dh, one column for each scalar h.

    Args:
        run: the losses.
        initial: the initial weights.
        schedule: the scheduled quantities by name.
        columns: the order of the scalars.
        chunk_size: as for :func:`~l2l_evograd.unroll.forward_mode`.

    Attributes:
        z: Z for each weight, shape (columns, *weight.shape).
    """

    def __init__(
        self,
        run: TrainingRun,
        initial: Initial,
        schedule: Mapping[str, Windows],
        columns: Columns,
        chunk_size: int | None,
    ) -> None:
        self._run = run
        self._initial = initial
        self._schedule = schedule
        self._columns = columns
        if chunk_size is not None:
            check_count(chunk_size, "chunk_size")
        self._chunk_size = chunk_size
        start = initial.weights()
        self.z = self.zeros(start)
        if initial.learned:
            for number, (tangent, weight) in enumerate(zip(self.z, start, strict=True)):
                column = columns.number("init", 0, initial.column(number))
                tangent[column] = weight

    def zeros(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """Return zeros of the shape of Z."""
        count = self._columns.count
        return [weight.new_zeros(count, *weight.shape) for weight in weights]

    def products(
        self, step: int, weights: Sequence[Tensor]
    ) -> tuple[list[Tensor], Iterator[tuple[slice, list[Tensor | None]]]]:
        """Return g, and H Z + ∂g/∂h of a step, chunk by chunk; see :class:`Products`.

        Both are those of the clipped gradient.

        Args:
            step: the step.
            weights: θ before the step, as leaves that require grad.
        """
        run = self._run
        value = run.loss(step, weights)
        slopes, direct = run.gradients_of(step, value, weights)
        parts = Products(
            slopes, weights, direct, run.hyperparameters, self._chunk_size
        )(self.z, self._columns.moving(step), self._columns.inside)
        slopes = [slope.detach() for slope in slopes]
        return run.clipped(slopes), self._kept(slopes, parts)

    def _kept(
        self,
        slopes: Sequence[Tensor],
        parts: Iterator[tuple[slice, list[Tensor | None]]],
    ) -> Iterator[tuple[slice, list[Tensor | None]]]:
        for chunk, products in parts:
            pairs = zip(slopes, products, strict=True)
            yield (
                chunk,
                [p if p is None else self._run.kept(slope, p) for slope, p in pairs],
            )

    def active(self, kind: str, step: int, weight: int) -> int | None:
        """Return the column of the value that a weight uses at a step, if learned."""
        windows = self._schedule[kind]
        if not windows.learned:
            return None
        return self._columns.number(kind, windows.window(step), windows.column(weight))

    def result(self, weights: Sequence[Tensor]) -> RunGradients:
        """Return the gradients of L at the end of the run, ∇L(θ_T)·Z and ∂L/∂λ.

        Args:
            weights: θ_T, as leaves that require grad.
        """
        run, columns = self._run, self._columns
        outer = run.outer(weights)
        cotangents, direct = run.outer_slopes(outer, weights)
        with torch.no_grad():
            # The weights can differ in their precision.
            found = torch.zeros(
                columns.count, device=run.device, dtype=widest(run.device)
            )
            for tangent, cotangent in zip(self.z, cotangents, strict=True):
                rows = tangent.reshape(columns.count, -1)
                found += (rows @ cotangent.flatten().to(rows)).to(found)
            inside = [
                own + found[columns.of_tensor(row)].reshape(own.shape).to(own)
                for row, own in enumerate(direct)
            ]
            scale = None
            if self._initial.learned:
                begin = columns.number("init", 0, 0)
                scale = found[begin : begin + self._initial.width]
            schedule = {
                kind: windows.shaped(found[columns.of_kind(kind, windows)])
                for kind, windows in self._schedule.items()
                if windows.learned
            }
        return finished(run, weights, outer, inside, schedule, self._initial, scale)
