"""The reverse pass through a run that is taken back step by step."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from l2l_evograd.unroll.preparation import Prepared
from l2l_evograd.unroll.reversible_state import ReversibleState

_CAUSES = (
    "Likely causes: random numbers from elsewhere than torch's global generators, data "
    "or state that changes from call to call, or a kernel that sums in another order "
    "each time (torch.use_deterministic_algorithms(True) names it). Remove the cause, "
    "or use unrolled_sgd or forward_mode, which compute no step again"
)


class Unreversed(RuntimeError):
    """A run could not be taken back: an inner loss was not the same the second time."""


class Backwards:
    """dL/dθ, dL/dv and the sums of dL/dλ, carried from the end of a run to its start.

    Args:
        prepared: the run.
        state: θ and v after the run.
        cotangents: dL/dθ_T; they are changed in place, and are dL/dθ_0 at the end.
        gradients: ∂L/∂λ; everything that the inner losses contribute is added in place.

    Attributes:
        sums: the gradients of the optimizer's quantities that are learned.
    """

    def __init__(
        self,
        prepared: Prepared,
        state: ReversibleState,
        cotangents: Sequence[Tensor],
        gradients: Sequence[Tensor],
    ) -> None:
        self._run = prepared.run
        self._initial = prepared.initial
        self._schedule = prepared.schedule
        self._state = state
        self._gradients = gradients
        self._cotangents = cotangents
        self._of_velocity = [torch.zeros_like(c) for c in cotangents]
        device = prepared.run.device
        self.sums = {n: w.sums(device) for n, w in prepared.learned.items()}
        self._values: list[Tensor] = []

    def step(self, step: int) -> None:
        """Take a step back, and carry the cotangents through it.

        With dv the cotangent of v after the step:

            dα −= dθ·v,  dv ← dv − α dθ,  dβ += dv·v,  dξ += dv·θ,
            dθ ← dθ + ∇_θ(g·dv) + ξ dv,  dλ ← dλ + ∇_λ(g·dv),  dv ← β dv,

        where v is after the step in the first term, and before it in the third.

        Source: Maclaurin, Duvenaud, Adams, ICML 2015, Algorithm 2.
        """
        alpha, beta, xi = (windows.at(step) for windows in self._schedule.values())
        state = self._state
        self._add("lr", step, self._cotangents, state.velocity, sign=-1)
        for dv, dw, a in zip(self._of_velocity, self._cotangents, alpha, strict=True):
            dv.sub_(dw, alpha=a)
        state.undo_weights(alpha)
        with torch.enable_grad():
            weights = state.weights()
            value = self._run.again(step, weights)
            self._values.append(value.detach().reshape(()))
            slopes = self._run.clipped(self._run.slopes_of(step, value, weights))
            del value
            self._through(slopes, weights, [state.share(b) for b in beta])
            del weights
        slopes = [slope.detach() for slope in slopes]
        state.undo_velocity(slopes, beta, xi)
        self._add("momentum", step, self._of_velocity, self._of_momentum(slopes, xi))
        shares = [state.share(b) for b in beta]
        of_push = [c * dv for c, dv in zip(shares, self._of_velocity, strict=True)]
        self._add("weight_decay", step, of_push, state.weight)
        for number, dv in enumerate(self._of_velocity):
            self._cotangents[number].add_(dv, alpha=shares[number] * xi[number])
            dv.mul_(state.momentum(beta[number]))

    def check(self) -> None:
        """Compare θ and v with those at the start.

        Raises:
            Unreversed: if one bit differs, or if ∂ℓ/∂λ did at some step.
        """
        unlike = self._state.unlike(self._initial.weights())
        if not unlike:
            if self._run.unlike:
                raise Unreversed(
                    f"the derivative of the inner loss with respect to the "
                    f"hyperparameters was not the same when it was computed again, "
                    f"first at step {self._run.unlike[0]} on the way back. {_CAUSES}"
                )
            return
        first = torch.stack(self._run.values)
        again = torch.stack(self._values[::-1])
        steps = (first != again).nonzero().flatten().tolist()
        where = f", first at step {steps[-1]} on the way back" if steps else ""
        raise Unreversed(
            f"the run could not be taken back: {len(unlike)} of "
            f"{len(self._run.names)} weights, such as "
            f"{self._run.names[unlike[0]]!r}, are not what the run began with, because "
            f"an inner loss gave another result when it was computed again{where}. "
            f"{_CAUSES}"
        )

    def _add(
        self,
        name: str,
        step: int,
        left: Sequence[Tensor],
        right: Callable[[int], Tensor],
        sign: int = 1,
    ) -> None:
        if name in self.sums:
            parts = [
                sign * (tensor * right(number)).sum()
                for number, tensor in enumerate(left)
            ]
            self.sums[name].add(step, parts)

    def _of_momentum(
        self, slopes: Sequence[Tensor], xi: Sequence[float]
    ) -> Callable[[int], Tensor]:
        """Return ∂v/∂β of a step, once θ and v are those before it."""
        state = self._state

        def part(number: int) -> Tensor:
            if not state.dampening:
                return state.velocity(number)
            push = state.push(number, slopes[number], xi[number])
            return state.velocity(number) - push

        return part

    def _through(
        self,
        slopes: Sequence[Tensor],
        weights: Sequence[Tensor],
        shares: Sequence[float],
    ) -> None:
        """Add ∇_θ(c g·dv) to dθ, and ∇_λ(c g·dv) to dλ."""
        pairs = [
            (slope, c * dv)
            for slope, dv, c in zip(slopes, self._of_velocity, shares, strict=True)
            if slope.requires_grad
        ]
        if not pairs:
            return
        found = torch.autograd.grad(
            [slope for slope, _ in pairs],
            [*weights, *self._run.hyperparameters],
            [dv for _, dv in pairs],
            allow_unused=True,
        )
        totals = [*self._cotangents, *self._gradients]
        for total, part in zip(totals, found, strict=True):
            if part is not None:
                total.add_(part)
