"""``EvoGradMetaOptimizer``: EvoGrad with the interface of learn2learn's algorithms."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from l2l_evograd.algorithms.base_learner import BaseLearner
from l2l_evograd.algorithms.meta_batch import adapt_tasks
from l2l_evograd.checks import check_callable
from l2l_evograd.estimators import Estimator
from l2l_evograd.hyperparameters import Hyperparameters
from l2l_evograd.updates.inner_step import MEMORY_LIMIT
from l2l_evograd.updates.learning_rates import Rates


class EvoGradMetaOptimizer(BaseLearner):
    """Adapt clones of a model and send gradients to its weights and to λ.

    ``learner = meta.clone()``; ``learner.adapt(loss)`` makes the inner step

        gradient:   θ' = θ − lr · ∇_θ ℓ(θ, λ)
        evolution:  θ* = Σ_k softmax(−ℓ/τ)_k (θ + ε_k), ℓ_k = ℓ(θ + ε_k, λ)

    and ``loss_fn(learner(x_query), y_query).backward()`` fills ``.grad`` of λ and,
    where wanted, of the model's own parameters.

    Without hyperparameters, a learner's tensors are ordinary tensors on autograd's
    graph, as in ``l2l.algorithms.MAML``, and autograd computes the derivative. The same
    holds with hyperparameters for ``estimator="exact"`` and ``first_order=False``.
    Otherwise the calls of the learner are recorded, and replayed at other weights. They
    are also recorded where a step is computed again to save memory, see ``memory``.

    Args:
        model: the module to adapt. It is wrapped, not copied or changed.
        lr: inner learning rate η, positive; ``update="evolution"`` does not use it. For
            learned rates: one tensor, or one for each adapted parameter, each of which
            has the parameter's shape or broadcasts to it. Rates that are parameters
            become parameters of this module, as in learn2learn's ``MetaSGD``.
        first_order: how the initial weights, and tensors from outside the learner that
            require grad, get their gradients: True drops the curvature of the inner
            step, False is exact. None: True if hyperparameters are named, otherwise
            False, as in MAML.
        allow_unused: whether the inner loss may leave adapted parameters or
            hyperparameters unused. None: as ``allow_nograd``.
        allow_nograd: accepted for compatibility with MAML. Parameters with
            ``requires_grad=False`` are left unchanged in any case.
        hyperparameters: λ, never adapted and never perturbed: tensors inside or
            outside the model, a module, names in the model, or an iterable of these.
        update: ``"gradient"`` or ``"evolution"`` (the paper's Algorithm 1; all
            gradients then come from its population).
        estimator: estimator of the hypergradient: ``EvoGrad(...)``, ``Guided(...)``,
            ``Exact()`` or one of the names ``"evograd"``, ``"guided"``, ``"exact"``.
            None: ``Guided()`` for ``"gradient"``, ``EvoGrad()`` for ``"evolution"``.
        generator: generator of the perturbations. None: a new generator, seeded from
            torch's global random state without drawing from it.
        memory: how exact derivatives use memory. ``"graph"`` keeps the graph of every
            step, as MAML does. ``"recompute"`` computes each step again in
            ``backward()``, so that memory does not grow with the number of steps.
            ``"auto"`` (default) keeps graphs until they exceed ``memory_limit``, and
            computes later steps again.
        memory_limit: limit in bytes, 256 MiB by default. The size of a graph is
            estimated from the shapes of its results.
        check: when the inner loss is repeated at the same weights and compared with the
            original: ``"first"`` (default), in the first 3 steps and every 100th;
            ``"always"``; ``"never"``. Steps that are computed again are always
            compared.
        nan_policy: what happens if an inner loss, its gradient, a weight, a
            hyperparameter, or in ``backward()`` a hypergradient is NaN or infinite.
            ``"raise"``: NotFiniteError. ``"skip"``: :attr:`skipped` counts it, an inner
            step leaves the learner as it is, and a step through which a hypergradient
            is not finite adds nothing to it. On a CUDA device the values of ``"raise"``
            are looked at when they have arrived, in a later call; ``"skip"`` waits for
            the device. What autograd adds to ``.grad`` besides, as the gradient of the
            initial weights, is the caller's to look at.

    Attributes:
        skipped: see ``nan_policy``; clones count together.

    Raises:
        TypeError: if the model is not a module, is scripted or is the result of
            ``torch.compile(module)``, or if the estimator is not an estimator.
        ValueError: for a learning rate that is not positive and finite, unknown
            names, or a model with nothing to adapt.

    Cost:
        ``adapt``: one forward pass for each call of the learner and one backward pass;
        evolution makes K passes instead. ``backward``: what the estimator costs, one
        step at a time, or one backward pass through the graphs that were kept. A check
        costs one forward and one backward pass.

    Source: Finn, Abbeel, Levine, ICML 2017 (MAML); Bohdal, Yang, Hospedales, NeurIPS
    2021 (EvoGrad), Algorithm 1.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: Rates,
        first_order: bool | None = None,
        allow_unused: bool | None = None,
        allow_nograd: bool = False,
        hyperparameters: Hyperparameters | None = None,
        update: str = "gradient",
        estimator: Estimator | str | None = None,
        generator: torch.Generator | None = None,
        memory: str = "auto",
        memory_limit: int = MEMORY_LIMIT,
        check: str = "first",
        nan_policy: str = "raise",
    ) -> None:
        super().__init__(
            model,
            lr,
            first_order=first_order,
            allow_unused=allow_unused,
            allow_nograd=allow_nograd,
            hyperparameters=hyperparameters,
            update=update,
            estimator=estimator,
            generator=generator,
            memory=memory,
            memory_limit=memory_limit,
            check=check,
            nan_policy=nan_policy,
        )

    @property
    def hyperparameters(self) -> list[Tensor]:
        """λ, the tensors that receive ``.grad``."""
        return list(self._references.tensors)

    def task_losses(
        self,
        loss: Callable[[Any, Tensor], Tensor],
        support: tuple[Tensor, Tensor],
        query: tuple[Tensor, Tensor],
        steps: int = 1,
        chunk_size: int | None = None,
    ) -> Tensor:
        """Return the query losses of a meta-batch, all tasks computed at once.

        For each task this is ``learner = meta.clone()``, ``steps`` times
        ``learner.adapt(loss(learner(x), y))`` on the support, and
        ``loss(learner(x), y)`` on the query. ``task_losses(...).mean().backward()``
        fills ``.grad``, as after that loop.

        Each task has its own weights, random numbers and buffers: batch normalisation
        uses the statistics of the task. Estimators work on each task; their
        perturbations are those of the loop. The model's buffers are not changed.
        Python code of the model and of the loss runs once for all tasks.

        Args:
            loss: scalar loss of one task's outputs and labels.
            support: inputs and labels of the inner steps, each with a leading task
                axis, such as shapes (tasks, ways · shots, ...) and
                (tasks, ways · shots).
            query: inputs and labels of the outer loss, in the same form.
            steps: inner steps for each task.
            chunk_size: tasks that are computed at once, to limit the memory of a
                single operation. None: all.

        Returns:
            The query losses, shape (tasks,), on the autograd graph of the model's
            parameters and of λ.

        Raises:
            TypeError: if support or query is not a pair of tensors with a task axis,
                such as a list of tasks of unequal size; if a subclass has another
                ``forward`` or ``adapt``, or if this module has hooks.
            ValueError: for different numbers of tasks, for a loss that is not a finite
                scalar, or that does not use some of the adapted parameters or
                hyperparameters.
            RuntimeError: if the model or the loss cannot be computed for all tasks at
                once: if it reads values as Python numbers, keeps tensors of a call in
                its attributes, draws random numbers with Python or NumPy, has backward
                hooks or activation checkpoints, or uses an operation that
                ``torch.func.vmap`` does not support.

        Cost:
            The arithmetic of the loop in a few large operations. The graphs of all
            tasks exist at the same time.
        """
        check_callable(loss, "loss", "loss(outputs, labels)")

        def of_task(model: nn.Module, inputs: Tensor, labels: Tensor) -> Any:
            return loss(model(inputs), labels), ()

        return adapt_tasks(self, of_task, of_task, support, query, steps, chunk_size)[0]
