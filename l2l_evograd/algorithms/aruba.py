"""``ARUBA``: inner learning rates from the distances and gradients of earlier tasks."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from l2l_evograd.algorithms.base_learner import BaseLearner
from l2l_evograd.algorithms.initial_weights import Reptile, loss_with_gradient
from l2l_evograd.algorithms.rate_statistics import (
    RATES,
    Statistics,
    Task,
    check_task,
    filled,
    priors,
    rates_of,
)
from l2l_evograd.checks import (
    InputError,
    NotFiniteError,
    check_choice,
    check_not_negative,
    check_positive,
)
from l2l_evograd.hyperparameters import References
from l2l_evograd.replay.tensor import plain
from l2l_evograd.updates.situation import Situation


class ARUBA(BaseLearner):
    """Learn the rates of the inner steps from tasks, without any second derivative.

    Two sums over the tasks t = 1, 2, ... give the rate of each weight: b, how far
    adaptation moved it, and g, how large its gradients were.

        η = √(b / g)
        θ ← θ − η ⊙ ∇ℓ(θ)                         in each inner step, from θ = φ
        b ← b + ½(φ − θ̂)² + ε²/(t + 1)^p          after the task, which ended at θ̂
        g ← g + Σ_steps ∇ℓ² + ζ²/(t + 1)^p

    with b = ε², g = ζ² and ε = lr ζ at first, so that the first rate is ``lr``. A loop
    with Reptile's meta-step is

        optimizer = torch.optim.SGD(meta.parameters(), lr=1.0)
        for batch in batches:
            optimizer.zero_grad()
            for task in batch:
                learner = meta.clone()
                for x, y in minibatches(task):
                    learner.adapt(loss(learner(x), y))
                meta.collect(learner)
                (learner.init_loss() / len(batch)).backward()
            optimizer.step()

    For first-order MAML's, take ``loss(learner(x_query), y_query)`` in place of
    ``init_loss()``. Rates stay the same during a round, as in federated averaging, if
    the learners are collected after the round.

    With one or two steps and noise-free gradients for a task, the rule drives every
    rate to zero. From three steps on, rate times curvature settles at 0.62 (three
    steps) to 0.67 (many). Noise of the gradients lowers the rates.

    Args:
        model: the module to adapt. It is wrapped, not copied or changed.
        lr: η at first, a positive number.
        zeta: ζ. The larger it is in comparison with a task's gradients, the more tasks
            it takes to move the rates.
        rates: ``"coordinate"``: a rate for each weight; ``"parameter"``: for each
            tensor, √(Σb / Σg) with sums over its weights; ``"one"``: a single rate,
            with sums over all weights.
        p: exponent of the priors' decay. 0: each task adds ε² and ζ² again.
        allow_unused: whether the inner loss may leave parameters unused. Their rates do
            not change.
        allow_nograd: accepted for compatibility with MAML.
        nan_policy: as for :class:`~l2l_evograd.EvoGradMetaOptimizer`; with ``"skip"``
            learners that diverged are not collected either.

    Attributes:
        distances, gradients: b and g, as buffers, so that ``state_dict`` holds them.
        tasks: number of collected tasks, as a buffer.

    Raises:
        TypeError, ValueError: as :class:`~l2l_evograd.EvoGradMetaOptimizer`; for
            numbers out of range, an unknown kind of rates, or complex parameters.

    Cost: ``adapt``: one backward pass. Memory: b and g, each as large as the adapted
    weights and in single precision at least. A learner also holds φ, its rates and a
    sum of squared gradients; ARUBA++ also copies of b and g.

    Source: Khodak, Balcan, Talwalkar, "Adaptive Gradient-Based Meta-Learning Methods",
    NeurIPS 2019, and its released code.
    """

    _task: Task | None = None

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        zeta: float = 0.1,
        rates: str = "coordinate",
        p: float = 1.0,
        allow_unused: bool | None = None,
        allow_nograd: bool = False,
        nan_policy: str = "raise",
    ) -> None:
        if isinstance(lr, Tensor | Sequence | nn.Module) and not isinstance(lr, str):
            raise InputError(
                "expected lr to be a number, because the rates of the weights are "
                "learned from it, got tensors; use EvoGradMetaOptimizer for rates of "
                "your own"
            )
        super().__init__(
            model,
            lr,
            first_order=True,
            allow_unused=allow_unused,
            allow_nograd=allow_nograd,
            nan_policy=nan_policy,
        )
        check_choice(rates, RATES, "rates")
        self.zeta = check_positive(zeta, "zeta")
        self.p = check_not_negative(p, "p")
        self._kind = rates
        weights = self._weights()
        for name, weight in zip(self._names(), weights, strict=True):
            if weight.is_complex():
                raise TypeError(
                    f"expected real parameters, got {name} of {weight.dtype}; freeze "
                    f"it with requires_grad_(False), or keep its real and imaginary "
                    f"parts as two parameters"
                )
        rate = float(self.lr)  # type: ignore[arg-type]  # a number, as checked above
        self._priors = priors(rate, self.zeta)
        self.distances = filled(weights, self._priors[0])
        self.gradients = filled(weights, self._priors[1])
        # register_buffer() refuses a name that the model has as an attribute.
        self._buffers["tasks"] = torch.zeros((), dtype=torch.int64)

    def rates(self) -> list[Tensor]:
        """Return the present rates η, one tensor of its shape for each parameter.

        Those of a learner are the ones of its next step.
        """
        if self._task is not None:
            rates: Any = self.lr
            if isinstance(rates, float):
                rates = [torch.full_like(w, rates) for w in self._task.start]
            return list(rates)
        return rates_of(self._kind, self.distances.tensors, self.gradients.tensors)

    def clone(
        self,
        first_order: bool | None = None,
        allow_unused: bool | None = None,
        allow_nograd: bool | None = None,
        *,
        lr: float | None = None,
        plus: float = 0.0,
    ) -> "ARUBA":
        """Return a learner with the present weights and rates.

        Args:
            first_order: None or True, because all steps are first order.
            allow_unused: as in the constructor; None keeps the value given there.
            allow_nograd: likewise.
            lr: a fixed rate in place of the learned ones, for Reptile itself, or to
                train at one rate and test with the learned ones.
            plus: c of ARUBA++: in each step, g also holds c times the squared gradients
                of the earlier steps of this task, so that its rates fall.

        Raises:
            ValueError: for numbers out of range, both ``lr`` and ``plus``, or
                ``first_order=False``; if the
                adapted parameters are no longer those that the statistics belong to.

        Cost: a copy of the weights and buffers.
        """
        if lr is not None and plus:
            raise InputError(
                f"expected lr or plus, got both {lr} and {plus}: rates that are fixed "
                f"do not fall"
            )
        _check_first_order(first_order)
        falls = check_not_negative(plus, "plus") > 0
        fixed = None if lr is None else check_positive(lr, "lr")
        b, g = self.distances.tensors, self.gradients.tensors
        if [w.shape for w in self._weights()] != [part.shape for part in b]:
            raise InputError(
                f"expected the {len(b)} adapted parameters that the statistics belong "
                f"to, got {', '.join(self._names())}; after parameters were frozen, "
                f"unfrozen or replaced, wrap the model in a new ARUBA"
            )
        # A clone made without gradients would have no weights that can be adapted.
        with torch.inference_mode(False), torch.enable_grad():
            learner = super().clone(True, allow_unused, allow_nograd)
            learner.distances, learner.gradients = Statistics(b), Statistics(g)
            learner._task = Task(
                References(self._weights()),
                [plain(weight.detach()) for weight in learner._weights()],
                [torch.zeros_like(part) for part in b],
                [part.clone() for part in b] if falls else [],
                [part.clone() for part in g] if falls else [],
                float(plus),
            )
            weights = learner._weights()
            learner.lr = _as_lr(self.rates(), weights) if fixed is None else fixed
        return learner

    def collect(self, learner: "ARUBA") -> None:
        """Add what a learner has seen of its task to the statistics.

        The model, its gradients and random state do not change.

        Args:
            learner: a clone of this algorithm that has been adapted to one task.

        Raises:
            TypeError: if this is not such a clone.
            ValueError: if it made no step, was collected before, diverged, or is
                ARUBA++, whose gradients belong to other rates.
        """
        task = self._collectable(learner)
        b, g = self.distances.tensors, self.gradients.tensors
        ways = zip(task.start, learner._weights(), b, strict=True)
        moved = [x.to(sums) - plain(end.detach()).to(sums) for x, end, sums in ways]
        try:
            check_task(moved, task.squares)
        except NotFiniteError:
            self._watch.skip()
            return
        power = (int(self.tasks) + 2) ** self.p  # this is task number self.tasks + 1
        for place in task.used:
            b[place] += 0.5 * moved[place].square() + self._priors[0] / power
            g[place] += task.squares[place] + self._priors[1] / power
        self.tasks += 1
        task.collected = True

    def init_loss(self) -> Tensor:
        """Return ½‖φ − θ̂‖² with θ̂ held fixed: Reptile's loss of the initial weights.

        Its gradient is φ − θ̂. With ``SGD(lr=s)`` and the mean over tasks, the
        meta-step is Reptile's interpolation; with ``SGD(lr=1)`` and the weights
        n_u / Σ n_u it is federated averaging.

        Raises:
            TypeError: if this is not a clone.
            ValueError: if it made no step.

        Cost: none.
        """
        task = self._adapted("init_loss()")
        self._check_unbroken()
        value, gradient = Reptile(task.start).directed(None, self._weights())
        return loss_with_gradient(value, task.initial.tensors, gradient)

    def _moved(self, now: Situation) -> list[Tensor]:
        """Make an inner step at this learner's rates; keep its squared gradients."""
        task = self._own_task("adapt()")
        _check_first_order(now.first_order)
        stepped = self._stepped(now, ())
        for place, gradient in enumerate(stepped.gradients):
            if gradient is not None:
                task.squares[place] += gradient.to(task.squares[place]).square()
                task.used.add(place)
        if task.plus:
            pairs = zip(task.g, task.squares, strict=True)
            grown = [g + task.plus * squares for g, squares in pairs]
            self.lr = _as_lr(rates_of(self._kind, task.b, grown), now.params)
        return stepped.params

    def _follows_way(self) -> bool:
        return self._task is not None

    def _own_task(self, what: str) -> Task:
        """Return the task of this learner."""
        if self._task is None:
            raise TypeError(
                f"{what} belongs to a clone: expected a learner, got the original or "
                f"a copy of it; call learner = meta.clone() first"
            )
        return self._task

    def _adapted(self, what: str) -> Task:
        """Return the task of this learner, which has made a step."""
        task = self._own_task(what)
        if not self._has_moved:
            raise InputError(
                f"expected at least one inner step before {what}, got none; call "
                f"learner.adapt(loss) first"
            )
        return task

    def _collectable(self, learner: Any) -> Task:
        if not isinstance(learner, ARUBA):
            raise TypeError(
                f"expected a clone of this ARUBA, got {type(learner).__name__}"
            )
        task = learner._adapted("collect()")
        learner._check_unbroken()
        shapes = [part.shape for part in self.distances.tensors]
        if [weight.shape for weight in task.start] != shapes:
            raise InputError(
                f"expected a clone of this ARUBA, with {len(shapes)} adapted "
                f"parameters, got one of another model"
            )
        if task.plus:
            raise InputError(
                "expected a learner at the learned rates or at a fixed rate, got one "
                "of ARUBA++ (plus), whose gradients belong to rates that fall; collect "
                "learners of meta.clone()"
            )
        if task.collected:
            raise InputError(
                "this learner was collected before: expected one clone for each task; "
                "call meta.clone() for the next task"
            )
        return task


def _as_lr(rates: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    return [rate.to(w.dtype) for rate, w in zip(rates, weights, strict=True)]


def _check_first_order(first_order: bool | None) -> None:
    if first_order is not None and not first_order:
        raise InputError(
            "expected first_order to be None or True, got False: ARUBA differentiates "
            "nothing twice; use EvoGradMetaOptimizer for second-order MAML"
        )
