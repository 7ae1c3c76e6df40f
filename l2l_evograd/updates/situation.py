"""The arguments and the result of one inner step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from l2l_evograd.finite import Watch
from l2l_evograd.replay.autograd_graph import reached_from
from l2l_evograd.replay.inner_loss import InnerLoss
from l2l_evograd.updates.adjoint import Gate, Wanted


@dataclass(frozen=True)
class Stepped:
    """The result of one inner step.

    Attributes:
        params: the new weights, on the graph of the old ones and of λ.
        gradients: ∇_θ ℓ at the old weights, the mean over processes, detached; None for
            a weight that the loss does not use. Empty for ``update="evolution"``.
        reached: for each of λ, whether the inner loss depends on it.
        extras: the derivatives of ℓ with respect to the extras of the situation.
        graph: tensors at the end of the graph that is kept until ``backward()``.
        before: the old weights, at which the graph of this step begins.
        size: bytes on the graph of ℓ, if the step has looked.
    """

    params: list[Tensor]
    gradients: list[Tensor | None]
    reached: list[bool]
    extras: list[Tensor | None]
    graph: Sequence[Tensor | None] = ()
    before: Sequence[Tensor] = ()
    size: int | None = None


@dataclass(frozen=True)
class Situation:
    """The arguments of one inner step: the inner loss and how to step on it.

    Attributes:
        value: ℓ as it was computed, on the graph of ``params``.
        params: θ.
        names: function that returns the names of ``params``, for error messages.
        lr: η, or one tensor for each of ``params``.
        hyperparameters: λ.
        first_order: whether to drop the curvature of the step for the initial weights,
            and for tensors from outside that require grad.
        allow_unused: whether to leave weights that the loss does not use unchanged,
            instead of raising an error.
        again: whether to compute the step again in ``backward()`` instead of keeping
            its graph.
        insist: whether to raise an error if the step cannot be computed again; if
            False, its graph is kept.
        keep: whether an exact step keeps its graph unless the estimator insists.
        check: whether to repeat the loss at the same weights and compare the result
            with ``value``.
        seed: seed of the perturbations; one for each task if there is ``each``.
        watch: what looks at the numbers of the step; None: nothing does.
        each: the losses of several tasks, shape (tasks,), if ℓ is their sum. The
            weights then have a leading task axis.
        gate: shut while a partial derivative is taken.
        retain_graph: whether to keep the graph of ``value``.
        extras: further tensors to differentiate the loss with respect to.
        beforehand: function of ``value`` and ``params``, called before a population is
            drawn; it may move the weights in place.
    """

    value: Tensor
    params: list[Tensor]
    names: Callable[[], Sequence[str]]
    lr: float | Sequence[Tensor] = 1.0
    hyperparameters: Sequence[Tensor] = ()
    first_order: bool = False
    allow_unused: bool = False
    again: bool = False
    insist: bool = False
    keep: bool = False
    check: bool = False
    seed: int | Sequence[int] = 0
    gate: Gate = field(default_factory=Gate)
    retain_graph: bool = False
    extras: Sequence[Tensor] = ()
    beforehand: Callable[[Tensor, Sequence[Tensor]], None] | None = None
    watch: Watch | None = field(default_factory=Watch)
    each: Tensor | None = None

    @property
    def target(self) -> Tensor:
        """What is computed again: ℓ, or the loss of each task."""
        return self.value if self.each is None else self.each

    def differentiate(
        self, inputs: Sequence[Tensor] = (), create_graph: bool = False
    ) -> list[Tensor | None]:
        """Differentiate ℓ with respect to the weights, ``inputs`` and the extras.

        Cost: one backward pass.
        """
        try:
            found = torch.autograd.grad(
                self.value,
                [*self.params, *inputs, *self.extras],
                allow_unused=True,
                retain_graph=self.retain_graph or create_graph,
                create_graph=create_graph,
            )
        except RuntimeError as error:
            if "second time" not in str(error):
                raise
            raise RuntimeError(
                "the inner loss depends on a graph that an earlier step has freed, "
                "such as the graph of an earlier loss or of a state stored on the "
                "module: detach() that tensor between the steps, or keep the graphs "
                "with first_order=False and memory='graph'"
            ) from error
        return list(found)

    def filled(self, found: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return ∇_θ ℓ, None for weights that the loss does not use.

        Raises:
            ValueError: if there are such weights and ``allow_unused`` is False.
        """
        slopes = list(found[: len(self.params)])
        if not self.allow_unused and all(slope is None for slope in slopes):
            raise ValueError(
                "the inner loss does not depend on the learner's present weights; "
                "compute it from learner(...) after the last adapt()"
            )
        if not self.allow_unused and any(slope is None for slope in slopes):
            names = self.names()
            unused = [n for n, s in zip(names, slopes, strict=True) if s is None]
            raise ValueError(
                f"the inner loss does not use {len(unused)} of the {len(slopes)} "
                f"adapted parameters: {', '.join(unused[:5])}"
                f"{', ...' if len(unused) > 5 else ''}. Freeze them with "
                f"requires_grad_(False) or pass allow_unused=True"
            )
        return slopes

    def extras_of(self, found: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return the derivatives of the extras, detached."""
        last = found[len(found) - len(self.extras) :]
        return [None if t is None else t.detach() for t in last]

    def moved(
        self,
        slopes: Sequence[Tensor | None],
        gradients: Sequence[Tensor | None],
        reached: list[bool],
        extras: list[Tensor | None],
        graph: Sequence[Tensor | None] = (),
    ) -> Stepped:
        """Return θ − η · ``slopes``; a weight without a slope does not change."""
        if isinstance(self.lr, float):
            after = [
                param if slope is None else param.sub(slope, alpha=self.lr)
                for param, slope in zip(self.params, slopes, strict=True)
            ]
        else:
            after = [
                param if slope is None else param - rate * slope
                for param, slope, rate in zip(self.params, slopes, self.lr, strict=True)
            ]
        known = [None if g is None else g.detach() for g in gradients]
        return Stepped(after, known, reached, extras, graph, self.params)


def roles(
    loss: InnerLoss, hyperparameters: Sequence[Tensor], first_order: bool
) -> tuple[Wanted, list[bool]]:
    """Return which inputs the estimator governs, and which λ the loss depends on.

    An input is a hyperparameter if it is one of λ or was computed from one. All other
    inputs, and the weights, are governed by ``first_order`` as in MAML.
    """
    reached = [False] * len(hyperparameters)
    own = {id(tensor): position for position, tensor in enumerate(hyperparameters)}
    governed: list[int] = []
    others: list[int] = []
    for position, tensor in enumerate(loss.inputs):
        hits = [False] * len(hyperparameters)
        if tensor.grad_fn is not None:
            hits = reached_from([tensor], hyperparameters)
        if id(tensor) in own:
            hits[own[id(tensor)]] = True
        reached = [a or b for a, b in zip(reached, hits, strict=True)]
        (governed if any(hits) else others).append(position)
    wanted = Wanted(
        hyperparameters=governed,
        others=[] if first_order else others,
        curvature=not first_order,
    )
    return wanted, reached
