"""A training run whose inner loss can be evaluated again at any of its steps.

The module behind the losses, its buffers and every ``.grad`` stay unchanged. A step
that is evaluated again sees the buffers and the random numbers of the first time.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from l2l_evograd.bilevel.problem import (
    DictProblem,
    Loss,
    ModuleProblem,
    outer_gradient,
)
from l2l_evograd.checks import (
    InputError,
    check_callable,
    check_count,
    check_differentiable,
    check_flag,
    check_loss,
    check_positive,
)
from l2l_evograd.finite import check_range, check_tensors
from l2l_evograd.hyperparameters import (
    Hyperparameters,
    check_no_hooks,
    check_reached,
)
from l2l_evograd.replay.autograd_graph import differentiable_again, reaches
from l2l_evograd.replay.call_state import TwiceDifferentiable, preserved_random_state
from l2l_evograd.undo import unchanged
from l2l_evograd.unroll.inner_gradient import inner_gradient
from l2l_evograd.unroll.losses import Losses, one_for_each_step
from l2l_evograd.unroll.repeats import Repeats
from l2l_evograd.unroll.symmetry import Symmetry


class TrainingRun:
    """The losses of a run of T steps, and the weights that it starts from.

    Args:
        inner_loss: ℓ, or one for each step.
        outer_loss: L.
        params: θ as a dict of tensors, or a module.
        hyperparameters: λ, or None.
        steps: T.
        allow_unused: accept λ and weights that no inner loss uses.
        clip: the largest absolute value of an entry of a gradient of ℓ; None: any.
        remember: keep the random state and the changed buffers of every step, for
            :meth:`again`.

    Attributes:
        steps: T.
        names: the names of θ.
        given: θ as the user gave them, detached.
        hyperparameters: λ, as the tensors whose gradients are computed.
        values: ℓ at each step so far, detached.
    """

    def __init__(
        self,
        inner_loss: Loss | Losses,
        outer_loss: Loss,
        params: Mapping[str, Tensor] | nn.Module,
        hyperparameters: Hyperparameters | Mapping[str, Tensor] | None,
        steps: int,
        allow_unused: bool,
        clip: float | None = None,
        remember: bool = False,
    ) -> None:
        self.steps = check_count(steps, "steps")
        if clip is not None:
            check_positive(clip, "clip")
        self._clip = clip
        check_callable(outer_loss, "outer_loss", "as inner_loss is")
        check_flag(allow_unused, "allow_unused")
        self._losses = one_for_each_step(inner_loss, steps)
        self._outer_loss = outer_loss
        self._problem = _problem(params, hyperparameters)
        self._plain = hyperparameters is None
        # A stand-in that no loss sees.
        hidden = self._plain and isinstance(self._problem, DictProblem)
        self.hyperparameters = [] if hidden else self._problem.hyperparameters
        self.names = self._problem.weight_names
        check_no_hooks(self.hyperparameters)
        if clip is not None:
            check_range(clip, self._problem.values, "clip")
        self.given = [value.detach() for value in self._problem.values]
        check_tensors(
            {"the weights": self.given, "the hyperparameters": self.hyperparameters}
        )
        self.values: list[Tensor] = []
        lam = self.hyperparameters
        self._grads = [(t, t.grad) for t in lam if t.retains_grad and not t.is_leaf]
        self._allow_unused = allow_unused
        self._symmetry = Symmetry(steps)
        self._reached = [False] * len(self.hyperparameters)
        self._recurrent = isinstance(params, nn.Module) and any(
            isinstance(child, nn.RNNBase) for child in params.modules()
        )
        self._buffers: dict[int, Tensor] = {}
        if isinstance(self._problem, ModuleProblem):
            self._buffers = self._problem.buffers()
        self._devices = {torch.device("cpu"), *(w.device for w in self.given)}
        self._repeats = Repeats(self._devices) if remember else None

    @property
    def device(self) -> torch.device:
        """The device of the first weight."""
        return self.given[0].device

    def loss(self, step: int, weights: Sequence[Tensor]) -> Tensor:
        """Return ℓ at a step; the steps come in their order, each once.

        Raises:
            TypeError, InputError: if it is not a finite scalar that requires grad.
        """
        if self._repeats is not None:
            self._repeats.begin()
        before, self._buffers = self._buffers, _copies(self._buffers)
        value = self._call(step, weights, self._buffers)
        if step == 0 and self.steps > 1:
            self._problem.warn_of_lost_state()
        value = check_loss(value, f"the inner loss at step {step}")
        self.values.append(value.detach().reshape(()))
        if self._repeats is not None:
            self._repeats.end(before, self._buffers)
        return check_differentiable(value)

    def slopes(self, step: int, weights: Sequence[Tensor]) -> list[Tensor]:
        """Return ∇_θ ℓ at a step on a graph, clipped; see :meth:`loss`."""
        return self.clipped(self.slopes_of(step, self.loss(step, weights), weights))

    def clipped(self, slopes: list[Tensor]) -> list[Tensor]:
        """Return gradients as the optimizer sees them: no entry is above ``clip``."""
        if self._clip is None:
            return slopes
        return [slope.clamp(-self._clip, self._clip) for slope in slopes]

    def kept(self, slope: Tensor, change: Tensor) -> Tensor:
        """Return the change of a clipped gradient: 0 in entries that are clipped."""
        if self._clip is None:
            return change
        return change * (slope.abs() <= self._clip)

    def slopes_of(
        self, step: int, value: Tensor, weights: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return ∇_θ of a value of ℓ on a graph; see :meth:`gradients_of`."""
        return self.gradients_of(step, value, weights)[0]

    def gradients_of(
        self,
        step: int,
        value: Tensor,
        weights: Sequence[Tensor],
        graph: bool = True,
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """Return ∇_θ and ∂/∂λ of a value of ℓ; see :func:`.inner_gradient`.

        Args:
            step: the step.
            value: the value of ℓ.
            weights: θ.
            graph: return the gradients on a graph.

        Raises:
            InputError: if ℓ does not use some of the weights.
            RuntimeError: if ℓ cannot be differentiated twice.
        """
        # Weights that were computed from λ would lead back through all earlier steps.
        apart = step == 0 or all(weight.is_leaf for weight in weights)
        lam = self.hyperparameters if graph and apart else []
        slopes, direct = inner_gradient(
            step, value, self.names, weights, lam, graph, self._allow_unused
        )
        if not graph:
            return slopes, direct
        reached = [grad is not None for grad in direct]
        if not apart and not all(self._reached):
            reached = reaches(value, self.hyperparameters)
        if reached:
            hits = zip(self._reached, reached, strict=True)
            self._reached = [before or now for before, now in hits]
        if self._repeats is not None:
            self._repeats.compare(step, direct)
        if step == 0 and not differentiable_again(slopes):
            raise RuntimeError(
                "the inner loss goes through a function that cannot be differentiated "
                "twice, such as a fused kernel; use another implementation of it"
            )
        if self._symmetry.due(step):
            self._symmetry.look(step, slopes, weights, direct, lam)
        return slopes, direct

    @property
    def unlike(self) -> list[int]:
        """The steps at which ∂ℓ/∂λ was not the same the second time."""
        return [] if self._repeats is None else self._repeats.unlike

    @contextlib.contextmanager
    def backwards(self) -> Iterator[None]:
        """Restore the random state after the body, which calls :meth:`again`."""
        self._symmetry.off = True  # the steps were looked at on the way there
        if self._repeats is not None:
            self._repeats.turn()
        with preserved_random_state(self._devices):
            yield

    def again(self, step: int, weights: Sequence[Tensor]) -> Tensor:
        """Return ℓ at a step again; the steps come in reverse order, each once.

        Needs ``remember``.
        """
        assert self._repeats is not None
        self._repeats.back(self._buffers)
        return self._call(step, weights, _copies(self._buffers))

    def outer(self, weights: Sequence[Tensor], name: str = "the outer loss") -> Tensor:
        """Return L at weights, with the buffers that the last inner loss left.

        Raises:
            TypeError, InputError: if it is not a finite scalar; calls it ``name``.
        """
        self._problem.values = list(weights)
        if isinstance(self._problem, ModuleProblem):
            value = self._problem.inner_from(self._outer_loss, _copies(self._buffers))
        else:
            value = self._problem.outer(self._seen(self._outer_loss))
        return check_loss(value, name)

    def outer_after(self, step: int, weights: Sequence[Tensor]) -> Tensor:
        """Return L after a step; only that after the last one draws random numbers."""
        with contextlib.ExitStack() as stack:
            if step < self.steps - 1:
                stack.enter_context(preserved_random_state(self._devices))
            return self.outer(weights, f"the outer loss after step {step}")

    def outer_slopes(
        self, outer: Tensor, wanted: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the derivatives of L with respect to ``wanted`` and to λ.

        Raises:
            ValueError: for an L that depends on none of them.
        """
        both = [*wanted, *self.hyperparameters]
        found = outer_gradient(outer, both, self._allow_unused)
        return found[: len(wanted)], found[len(wanted) :]

    def structured(self, gradients: Sequence[Tensor]) -> Any:
        """Return gradients of λ in the structure in which λ was given.

        Raises:
            ValueError: if no inner loss used one of λ.
        """
        if self._plain:
            return None
        for tensor, grad in self._grads:  # retain_grad() has let derivatives into it
            tensor.grad = grad
        if not self._allow_unused:
            names = self._problem.names
            check_reached(self._reached, self.hyperparameters, names)
        return self._problem.structured([grad.detach() for grad in gradients])

    def _call(
        self, step: int, weights: Sequence[Tensor], buffers: dict[int, Tensor]
    ) -> Tensor:
        loss = self._losses[step]
        self._problem.values = list(weights)
        versions = [weight._version for weight in weights]
        # Kernels with a second derivative in all passes: others may round differently.
        looks = unchanged(
            [*weights, *self.hyperparameters],
            f"the inner loss at step {step}",
            self._symmetry.due(step),
        )
        with looks, TwiceDifferentiable(self._recurrent):
            if isinstance(self._problem, ModuleProblem):
                value = self._problem.inner_from(loss, buffers)
            else:
                value = self._problem.outer(self._seen(loss))
            pairs = zip(self.names, weights, versions, strict=True)
            written = [name for name, weight, old in pairs if weight._version != old]
            if written:
                raise RuntimeError(
                    f"the inner loss at step {step} changed the weights "
                    f"{', '.join(written)} in place; only the optimizer's step may "
                    f"change them"
                )
        return value

    def _seen(self, loss: Loss) -> Loss:
        if self._plain:
            return lambda params, _: loss(params, None)
        return loss


def _problem(
    params: Mapping[str, Tensor] | nn.Module, hyperparameters: Any
) -> DictProblem | ModuleProblem:
    if isinstance(params, nn.Module):
        problem = ModuleProblem(params, hyperparameters)
        hooked = [n for n, p in params.named_parameters() if p._backward_hooks]
        if hooked:
            raise InputError(
                f"the parameters {', '.join(hooked)} have gradient hooks, which a run "
                f"does not call: expected none; use clip=, or change the inner loss"
            )
        _check_floats(dict(zip(problem.weight_names, problem.values, strict=True)))
        return problem
    if hyperparameters is None:
        hyperparameters = torch.zeros(())
    if isinstance(params, Mapping):
        _check_floats(params)
    return DictProblem(params, hyperparameters)


def _check_floats(params: Mapping[str, Tensor]) -> None:
    for name, value in params.items():
        if not (isinstance(value, Tensor) and value.is_floating_point()):
            kind = getattr(value, "dtype", type(value).__name__)
            raise TypeError(
                f"expected params to hold tensors of real numbers, got {kind} for "
                f"{name!r}"
            )


def _copies(buffers: dict[int, Tensor]) -> dict[int, Tensor]:
    return {key: buffer.detach().clone() for key, buffer in buffers.items()}
