"""``EvoGradMetaOptimizer``: EvoGrad with the interface of learn2learn's algorithms.

This file implements learn2learn's conventions: ``clone``, ``adapt``, call, the
arguments of ``l2l.algorithms.MAML``, ``module.*`` in the state dict, and attributes
that are looked up in the model. learn2learn itself is not imported.
"""

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from l2l_evograd.algorithms.checkpoints import Checkpoints
from l2l_evograd.algorithms.meta_batch import adapt_tasks
from l2l_evograd.estimators import Estimator
from l2l_evograd.hyperparameters import (
    Hyperparameters,
    References,
    adapted_names,
    check_reached,
    find_hyperparameters,
    name_of,
)
from l2l_evograd.replay.autograd_graph import in_backward
from l2l_evograd.replay.call_state import TwiceDifferentiable
from l2l_evograd.replay.module_copy import (
    buffers_of,
    copy_structure,
    exchange,
    has_statistics,
    is_compiled_in_place,
    parameters_of,
    renew_statistics,
)
from l2l_evograd.replay.tensor import (
    Recording,
    TapedTensor,
    begin_tape,
    ordinary_functions,
    plain,
    tape_attributes,
    taped,
)
from l2l_evograd.seeds import default_generator, draw_seed
from l2l_evograd.updates.adjoint import Gate
from l2l_evograd.updates.inner_step import (
    MEMORY_LIMIT,
    History,
    Keeping,
    inner_step,
    make_update,
    needs_a_record,
)
from l2l_evograd.updates.learning_rates import Rates, as_attribute, matched
from l2l_evograd.updates.situation import Situation


class EvoGradMetaOptimizer(nn.Module):
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
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"expected model to be a torch.nn.Module, got {type(model).__name__}"
            )
        copy_structure(model)  # raises an error if the model cannot be cloned
        super().__init__()
        self.module = model
        self.training = model.training
        if is_compiled_in_place(model):
            warnings.warn(
                "clones run without the effect of module.compile(), which is bound to "
                "the original parameters; compile functions that forward calls with "
                "the parameters as arguments instead",
                stacklevel=2,
            )
        self.lr = as_attribute(lr)
        tensors = find_hyperparameters(hyperparameters, model)
        self._references = References(tensors)
        self.first_order = bool(tensors) if first_order is None else first_order
        self.allow_nograd = allow_nograd
        self.allow_unused = allow_nograd if allow_unused is None else allow_unused
        self.update = update
        self.estimator = estimator
        self._update = make_update(update, estimator)
        if update == "evolution" and not isinstance(self.lr, float):
            raise ValueError(
                "expected lr to be a number for update='evolution', which does not use "
                "it, got tensors; use update='gradient' for learned rates"
            )
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(
                f"expected generator to be a torch.Generator, got "
                f"{type(generator).__name__}"
            )
        self.generator = default_generator() if generator is None else generator
        self._history = History(check)
        self._keeping = Keeping(memory, memory_limit)
        self._checkpoints = Checkpoints()
        self._recurrent = any(isinstance(m, nn.RNNBase) for m in model.modules())
        self._normalizes = has_statistics(model)
        self._gate = Gate()
        self._is_learner = False
        self._has_moved = False
        self._decide()
        self._reached = [False] * len(tensors)
        parameters = dict(model.named_parameters())
        names = adapted_names(model, tensors)
        matched(self.lr, lambda: names, [parameters[name] for name in names])

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of this module, or else of the model."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "module":
                raise
            return getattr(self.module, name)

    @property
    def hyperparameters(self) -> list[Tensor]:
        """λ, the tensors that receive ``.grad``."""
        return list(self._references.tensors)

    def clone(
        self,
        first_order: bool | None = None,
        allow_unused: bool | None = None,
        allow_nograd: bool | None = None,
    ) -> "EvoGradMetaOptimizer":
        """Return a learner that starts at the current weights, on their autograd graph.

        Adapting the learner does not change the original or its buffers.

        Args:
            first_order: as in the constructor; None keeps the value given there.
            allow_unused: likewise.
            allow_nograd: likewise.

        Cost: a copy of the weights and buffers.
        """
        learner = copy.copy(self)
        # A shallow copy shares the dictionaries of parameters, buffers and submodules.
        learner.__dict__ = {
            key: value.copy() if isinstance(value, dict) else value
            for key, value in vars(self).items()
        }
        if first_order is not None:
            learner.first_order = first_order
        if allow_unused is not None:
            learner.allow_unused = allow_unused
        if allow_nograd is not None:
            learner.allow_nograd = allow_nograd
        learner._is_learner = True
        learner._keeping = self._keeping.fresh()
        learner._gate = Gate()
        learner._decide()
        with ordinary_functions():
            shared = {id(tensor) for tensor in self._references.tensors}
            new = {
                id(p): p.clone()
                for p in self.module.parameters()
                if id(p) not in shared
            }
            new |= {id(b): b.clone() for b in self.module.buffers()}
            if learner._records:
                new = {key: learner._begun(t) for key, t in new.items()}
            learner.module = copy_structure(self.module, new)
        return learner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        if not self._is_learner:
            return self.module(*args, **kwargs)
        if self._has_moved and in_backward():
            raise RuntimeError(
                "the learner was called inside backward(), as by an activation "
                "checkpoint around a call of the learner, after its weights may have "
                "changed: expected checkpoints inside the model, around its layers"
            )
        if self._normalizes:
            renew_statistics(self.module)
        with self._kernels():
            return self._call(args, kwargs)

    def _kernels(self) -> contextlib.AbstractContextManager[None]:
        """Return a context with kernels that have the derivatives that are needed."""
        if self._twice:
            return TwiceDifferentiable(self._recurrent)
        return contextlib.nullcontext()

    def _call(self, args: Any, kwargs: dict[str, Any]) -> Any:
        outputs = self._recorded(args, kwargs)
        if self._checkpoints.behind(outputs):
            self.module = copy_structure(self.module)
        return outputs

    def _recorded(self, args: Any, kwargs: dict[str, Any]) -> Any:
        if not self._records or not (self._follows or torch.is_grad_enabled()):
            return self.module(*args, **kwargs)
        with ordinary_functions():
            with Recording(buffers_of(self.module)) as record:
                outputs = self.module(*args, **kwargs)
            if record.on:
                tape_attributes(self.module, self._follows)
                taped(outputs, self._follows)
            return outputs

    def adapt(
        self,
        loss: Tensor | Callable[["EvoGradMetaOptimizer"], Tensor],
        first_order: bool | None = None,
        allow_unused: bool | None = None,
        allow_nograd: bool | None = None,
    ) -> None:
        """Make one inner step, which replaces this learner's weights.

        Args:
            loss: scalar tensor computed from ``learner(...)``, or a callable that takes
                the learner and returns such a tensor; it is called once.
            first_order: for this step only; None keeps the learner's setting.
            allow_unused: likewise.
            allow_nograd: accepted for compatibility with MAML.

        Raises:
            TypeError: if this is not a clone, if the loss is not a tensor, or if the
                loss has to be computed again and cannot be.
            ValueError: if the loss is not a finite scalar, or does not use some of
                the adapted parameters or hyperparameters.
            RuntimeError: if the loss, computed again, gives a different result.
        """
        if not self._is_learner:
            raise TypeError(
                "adapt() moves the weights of a clone: expected a learner, got the "
                "original; call learner = meta.clone() first"
            )
        if callable(loss) and not isinstance(loss, Tensor):
            with self._recording(buffers_of(self.module)):
                loss = loss(self)
        params = self._weights()
        stays = self._checkpoints.behind(loss)
        moved = self._moved(
            Situation(
                value=loss,
                params=params,
                names=self._names,
                lr=matched(self.lr, self._names, params),
                first_order=self.first_order if first_order is None else first_order,
                allow_unused=self.allow_unused
                if allow_unused is None
                else allow_unused,
                seed=draw_seed(self.generator) if self._update.estimator.random else 0,
            )
        )
        with ordinary_functions():
            after = [self._begun(p) if self._records else plain(p) for p in moved]
            new = {id(p): a for p, a in zip(params, after, strict=True)}
            if stays:
                self.module = copy_structure(self.module, new)
            else:
                exchange(self.module, new)

    def _moved(self, now: Situation) -> list[Tensor]:
        """Make an inner step with this learner's settings; return the new weights."""
        stepped = inner_step(
            self._update,
            replace(
                now,
                hyperparameters=self._references.tensors,
                again=self._again,
                insist=self._keeping.insist,
                keep=self._keeping.keeps,
                check=self._records and self._history.due(),
                gate=self._gate,
            ),
        )
        self._check_reached(stepped.reached, now.allow_unused)
        self._keeping.note(stepped)
        self._history.note(stepped)
        self._has_moved = True
        self._decide()
        return stepped.params

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

        def of_task(model: nn.Module, inputs: Tensor, labels: Tensor) -> Any:
            return loss(model(inputs), labels), ()

        return adapt_tasks(self, of_task, of_task, support, query, steps, chunk_size)[0]

    def _decide(self) -> None:
        """Decide whether later calls are recorded and later steps computed again."""
        exact = bool(self._references.tensors) and self._update.estimator.exact
        self._twice = exact or not self.first_order
        self._again = self._twice and self._keeping.again
        self._records = needs_a_record(
            self._update,
            self._references.tensors,
            self.first_order,
            self._keeping,
            self._history,
        )

    def _recording(
        self, buffers: Iterable[Tensor]
    ) -> contextlib.AbstractContextManager[Any]:
        if self._records:
            return Recording(buffers)
        return contextlib.nullcontext()

    @property
    def _follows(self) -> bool:
        """Whether results without a gradient are recorded too."""
        return self.update == "evolution"

    def _begun(self, tensor: Tensor) -> Tensor:
        return begin_tape(tensor, self._follows)

    def _weights(self) -> list[Tensor]:
        """Return the parameters of the module that adapt() moves."""
        excluded = {id(tensor) for tensor in self._references.tensors}
        found: dict[int, Tensor] = {}
        for tensor in parameters_of(self.module):
            if tensor.requires_grad and id(tensor) not in excluded:
                found[id(tensor)] = tensor
        return list(found.values())

    def _names(self) -> list[str]:
        return adapted_names(self.module, self._references.tensors)

    def _check_reached(self, reached: list[bool], allow_unused: bool) -> None:
        if not reached:
            return
        # A hyperparameter counts as used if an earlier step of any learner used it.
        # This step may leave it unused, as in an evaluation with layers switched off.
        pairs = zip(self._reached, reached, strict=True)
        self._reached[:] = [before or now for before, now in pairs]
        if not (allow_unused or all(self._reached)):
            tensors = self.hyperparameters
            names = [name_of(t, self.module, i) for i, t in enumerate(tensors)]
            check_reached(self._reached, tensors, names)

    def __deepcopy__(self, memo: dict[int, Any]) -> "EvoGradMetaOptimizer":
        """Return a learner at the current weights, without their graph."""
        tensors = [*parameters_of(self.module), *buffers_of(self.module)]
        for child in self.module.modules():  # tensors that calls stored there
            tensors += [t for t in vars(child).values() if isinstance(t, Tensor)]
        for tensor in tensors:
            if tensor.grad_fn is not None or isinstance(tensor, TapedTensor):
                new = plain(tensor.detach()).clone()
                new.requires_grad_(tensor.requires_grad)
                memo[id(tensor)] = self._begun(new) if self._records else new
        twin: EvoGradMetaOptimizer = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """Return the state; the generator becomes its device and random state."""
        state = dict(vars(self))
        generator = state.pop("generator")
        return {**state, "_generator": (generator.device, generator.get_state())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a state. A copy owns its module, so it may adapt the module."""
        state = dict(state)
        device, random_state = state.pop("_generator")
        super().__setstate__(state)
        self.generator = torch.Generator(device)
        self.generator.set_state(random_state)
        self._is_learner = True
