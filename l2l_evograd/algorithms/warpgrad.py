"""``WarpGrad``: warped gradient descent behind learn2learn's interface."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from l2l_evograd.algorithms.base_learner import BaseLearner
from l2l_evograd.algorithms.initial_weights import (
    METHODS,
    InitialWeights,
    loss_with_gradient,
)
from l2l_evograd.algorithms.warp_parameters import find_warp_parameters
from l2l_evograd.checks import InputError, check_choice
from l2l_evograd.estimators import Estimator, Exact
from l2l_evograd.hyperparameters import Hyperparameters, check_no_hooks
from l2l_evograd.replay.autograd_graph import reaches
from l2l_evograd.updates.adjoint import Gate, attached
from l2l_evograd.updates.learning_rates import Rates
from l2l_evograd.updates.situation import Situation, Stepped


class WarpGrad(BaseLearner):
    """Learn layers that stay fixed during adaptation and warp its gradients.

    θ are the task parameters, which ``adapt`` moves, and φ the warp parameters, which
    it leaves alone:

        θ_{k+1} = θ_k − lr · ∇_θ L_task(θ_k; φ)

    The meta-objective is the query loss after one step from every point θ_k of the way,
    each point taken as a constant:

        exact:        Σ_k L_meta(θ_k − lr · ∇_θ L_task(θ_k; φ); φ)
        first order:  Σ_k L_meta(stop[θ_{k+1}]; φ)

    So no derivative passes through more than one step, and neither time for a step nor
    memory grows with the number of steps. A loop over tasks is

        learner = meta.clone()
        for _ in range(K):
            learner.adapt(loss(learner(x), y))
            (loss(learner(x_query), y_query) / K).backward()    # .grad of φ
        learner.init_loss(loss(learner(x_query), y_query)).backward()    # .grad of θ_0

    Args:
        model: the task learner with warp layers in it. It is wrapped, not copied.
        lr: inner learning rate, as for :class:`~l2l_evograd.EvoGradMetaOptimizer`.
            Rates that are parameters learn from the same query losses as φ.
        warp: φ: modules, tensors, or names of these in the model. None: all layers that
            :func:`~l2l_evograd.warp_layers.add_warp_layers` put into the model.
        first_order: whether to drop the derivative through the step. φ then acts only
            through the query's own forward pass.
        init: how the initial weights θ_0 are learned, see :meth:`init_loss`:
            ``"maml"``, ``"fomaml"``, ``"reptile"``, ``"leap"``; None: they are not.
        estimator: of the derivative through the step, as for
            :class:`~l2l_evograd.EvoGradMetaOptimizer`; None: ``Exact()``.
        allow_unused: whether the inner loss may leave parameters or φ unused.
        allow_nograd: accepted for compatibility with MAML.
        generator: generator of the estimator's perturbations.
        check: as for :class:`~l2l_evograd.EvoGradMetaOptimizer`.
        nan_policy: likewise; with ``"skip"`` the graph of two steps is kept at a time.

    Raises:
        TypeError, ValueError: as :class:`~l2l_evograd.EvoGradMetaOptimizer`.
        ValueError: if there are no warp layers, or if one of them is also adapted.

    Tensors from outside the learner that require grad, and that are not φ, get no
    gradient through a step. Between the steps of one task φ must not be changed if
    ``init="maml"``, whose gradient passes through all of them.

    Cost:
        ``adapt``: one backward pass; the forward pass is the caller's. ``backward()``
        of a query loss: one backward pass, and, unless ``first_order``, what the
        estimator costs for one step. Memory: the graph of one step; with
        ``init="maml"`` the graphs of all steps.

    Source: Flennerhag, Rusu, Pascanu, Visin, Yin, Hadsell, "Meta-Learning with Warped
    Gradient Descent", ICLR 2020, equations 11 and 12, Algorithm 1. Algorithm 2 is
    :class:`~l2l_evograd.algorithms.trajectory_buffer.TrajectoryBuffer`.
    """

    init: str | None = None
    _initial: Sequence[Tensor] = ()
    _way: InitialWeights | None = None
    _open: "_OneStep | None" = None

    def __init__(
        self,
        model: nn.Module,
        lr: Rates,
        warp: Hyperparameters | None = None,
        first_order: bool = False,
        init: str | None = None,
        estimator: Estimator | str | None = None,
        allow_unused: bool | None = None,
        allow_nograd: bool = False,
        generator: torch.Generator | None = None,
        check: str = "first",
        nan_policy: str = "raise",
    ) -> None:
        if isinstance(model, nn.Module):
            warp = find_warp_parameters(warp, model)
        super().__init__(
            model,
            lr,
            first_order=first_order,
            allow_unused=allow_unused,
            allow_nograd=allow_nograd,
            hyperparameters=warp,
            estimator=Exact() if estimator is None else estimator,
            generator=generator,
            check=check,
            nan_policy=nan_policy,
        )
        if init is not None:
            check_choice(init, tuple(METHODS), "init")
        self.init = init
        self._cuts = Gate()
        self._decide()

    def warp_parameters(self) -> list[Tensor]:
        """Return φ, for an optimizer or a group of one."""
        return list(self._references.tensors)

    def init_parameters(self) -> list[Tensor]:
        """Return θ_0, for an optimizer or a group of one."""
        return self._weights()

    def clone(
        self,
        first_order: bool | None = None,
        allow_unused: bool | None = None,
        allow_nograd: bool | None = None,
    ) -> "WarpGrad":
        """Return a learner that starts at the present weights.

        The learner's weights are constants: only :meth:`init_loss` leads back to θ_0.

        Args:
            first_order: as in the constructor; None keeps the value given there.
                Evaluation needs no derivative of a step: pass True.
            allow_unused: likewise.
            allow_nograd: likewise.

        Cost: a copy of the weights and buffers.
        """
        held = {id(parameter) for parameter in self.module.parameters()}
        if not all(id(tensor) in held for tensor in self._references.tensors):
            raise InputError(
                "a warp parameter is no longer a parameter of the model: expected the "
                "warp layers that WarpGrad was made with, got others, as after "
                "load_state_dict(assign=True) or a parametrization; wrap the model in "
                "a new WarpGrad"
            )
        learner = super().clone(first_order, allow_unused, allow_nograd)
        learner._initial = self._weights()
        learner._cuts = Gate()
        learner._open = learner._way = None
        if self.init and not self._has_moved:
            learner._way = METHODS[self.init](learner._weights())
        return learner

    def init_loss(self, loss: Tensor | None = None) -> Tensor:
        """Return a loss whose gradient is that of the initial weights θ_0.

        φ gets nothing from this loss, and θ_0 gets nothing from other losses.

        Args:
            loss: for ``init="maml"`` and ``"fomaml"``: the query loss at the learner's
                last weights, before its ``backward()``. For ``"leap"``: the inner loss
                there. For ``"reptile"``: None.

        Returns:
            ``"maml"``, ``"fomaml"``: the query loss, with its gradient through all
            steps or with the steps as the identity. ``"reptile"``: ½‖θ_K − θ_0‖²,
            gradient θ_0 − θ_K. ``"leap"``: the length of the way in the space of
            weights and loss, Leap's gradient.

        Raises:
            ValueError: if ``init`` is None, without a step, without the loss, or,
                unless it is skipped, if the gradient is not finite.
            TypeError: if this is not a clone.
            RuntimeError: if the graph of the query loss was freed.

        Cost: ``"maml"``: one backward pass, and one through each step. ``"fomaml"``:
        one backward pass. ``"reptile"``, ``"leap"``: none.
        """
        if not self._is_learner or (self.init and self._way is None):
            raise TypeError(
                "init_loss() belongs to a clone that began at the initial weights: "
                "expected such a learner, got the original, a copy of a learner, a "
                "clone of one that has moved, or one of a TrajectoryBuffer; call "
                "learner = meta.clone() first"
            )
        if self._way is None:
            raise InputError(
                f"the initial weights are not learned: expected init to be one of "
                f"{', '.join(METHODS)}, got None; pass it to WarpGrad(...)"
            )
        if not self._has_moved:
            raise InputError(
                "expected at least one inner step before init_loss(), got none; call "
                "learner.adapt(loss) first"
            )
        self._check_unbroken()
        value, gradient = self._way.directed(loss, self._weights())
        if not self._watch.passes({"the gradient of the initial weights": gradient}):
            gradient = [torch.zeros_like(part) for part in gradient]
        return loss_with_gradient(value, self._initial, gradient)

    def _start(self, parameter: Tensor) -> Tensor:
        wanted = parameter.requires_grad
        return parameter.detach().clone().requires_grad_(wanted)

    def _follows_way(self) -> bool:
        return self._way is not None

    @property
    def _curved(self) -> bool:
        return self.init is not None and METHODS[self.init].curved

    def _kept(self) -> tuple[Sequence[Tensor], bool]:
        tensors = () if self.first_order else self._references.tensors
        return tensors, not self._curved

    def _moved(self, now: Situation) -> list[Tensor]:
        """Make an inner step; the new weights lead to φ through this step alone."""
        check_no_hooks(self._references.tensors)
        earlier = self._open
        if self.nan_policy == "raise":  # else the step may be left out
            self._release(earlier)
        warp = () if now.first_order else self._references.tensors
        if now.first_order and not all(self._reached):
            reached = reaches(now.value, self._references.tensors)
            self._check_reached(reached, now.allow_unused)
        with self._cuts.closed():
            stepped = self._stepped(replace(now, first_order=not self._curved), warp)
        self._release(earlier)
        if self._way is not None:
            self._way.note(now.params, now.value, stepped)
        rates = [] if isinstance(now.lr, float) else now.lr
        sources = _distinct([t for t in (*warp, *rates) if t.requires_grad])
        values = [param.detach() for param in stepped.params]
        if not sources:
            return [value.requires_grad_() for value in values]
        self._open = _OneStep(stepped, sources, self._cuts)
        return attached(values, sources, self._open, (), self._cuts, self._watch)

    def _release(self, step: "_OneStep | None") -> None:
        """Free the graph of an earlier step."""
        if step is not None:
            step.release()
            if not self._curved:
                self._keeping.release()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state, without the graphs of steps."""
        return {**super().__getstate__(), "_open": None, "_way": None, "_initial": ()}


class _OneStep:
    """The adjoint of one inner step with the weights before it held fixed."""

    def __init__(self, stepped: Stepped, sources: Sequence[Tensor], cuts: Gate) -> None:
        self._stepped: Stepped | None = stepped
        self._sources = sources
        self._cuts = cuts

    def release(self) -> None:
        """Free the graph of the step."""
        self._stepped = None

    def __call__(
        self, direction: list[Tensor], kept: Sequence[Tensor]
    ) -> Sequence[Tensor | None]:
        """Return the cotangents of φ and of learned rates."""
        if self._stepped is None:
            raise RuntimeError(
                "the graph of an earlier inner step was freed by the next adapt(), so "
                "that memory does not grow: call backward() of a query loss before the "
                "next adapt(). Second derivatives (create_graph=True) exist for the "
                "first step alone"
            )
        pairs = zip(self._stepped.params, direction, strict=True)
        ends = [(after, v) for after, v in pairs if after.requires_grad]
        with self._cuts.held(self._stepped.before):
            return torch.autograd.grad(
                [after for after, _ in ends],
                self._sources,
                [v for _, v in ends],
                retain_graph=True,
                create_graph=torch.is_grad_enabled(),
                allow_unused=True,
            )


def _distinct(tensors: Sequence[Tensor]) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())
