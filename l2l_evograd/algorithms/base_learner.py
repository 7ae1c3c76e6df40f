"""``BaseLearner``: what all algorithms behind learn2learn's interface have in common.

This file implements learn2learn's conventions: ``clone``, ``adapt``, call, ``module.*``
in the state dict, and attributes that are looked up in the model. learn2learn itself is
not imported. A subclass decides which derivatives an inner step keeps.
"""

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from l2l_evograd.algorithms.checkpoints import Checkpoints
from l2l_evograd.checks import (
    InputError,
    NotFiniteError,
    check_flag,
    check_generator,
    check_module,
)
from l2l_evograd.estimators import Estimator
from l2l_evograd.finite import Watch
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
from l2l_evograd.replay.wrong_derivatives import RightTwice, normalises_weights
from l2l_evograd.seeds import default_generator, draw_seed
from l2l_evograd.undo import Undo
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
from l2l_evograd.updates.situation import Situation, Stepped

_Learner = TypeVar("_Learner", bound="BaseLearner")


class BaseLearner(nn.Module):
    """Wrap a module, clone it, and adapt the clones by inner steps.

    A subclass may override what a learner starts at (``_start``), which derivatives a
    step keeps (``_moved``), and what that needs of the steps to come (``_kept``).

    Args:
        model: the module to adapt. It is wrapped, not copied or changed.
        lr: inner learning rate η: a number, a tensor, or one tensor for each parameter.
        first_order: whether to drop the curvature of the inner step; None: whether λ
            is named.
        allow_unused: whether the inner loss may leave parameters or λ unused; None: as
            ``allow_nograd``.
        allow_nograd: accepted for compatibility with MAML.
        hyperparameters: λ, which a step does not move; None: none.
        update: ``"gradient"`` or ``"evolution"``.
        estimator: estimator of the hypergradient, its name, or None.
        generator: generator of the perturbations; None: a new one.
        memory: how exact derivatives use memory.
        memory_limit: bytes of kept graphs at which ``memory="auto"`` changes its way.
        check: when the inner loss is repeated and compared with the original.
        nan_policy: what happens to what is not finite.

    Raises:
        TypeError, ValueError: as :class:`~l2l_evograd.EvoGradMetaOptimizer`.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: Rates,
        *,
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
        check_module(model)
        check_flag(allow_nograd, "allow_nograd")
        _check_flags(first_order=first_order, allow_unused=allow_unused)
        watch = Watch(nan_policy)
        copy_structure(model)  # raises an error if the model cannot be cloned
        super().__init__()
        self.module = model
        self.training = model.training
        if is_compiled_in_place(model):
            warnings.warn(
                "clones run without the effect of module.compile(), which is bound to "
                "the original parameters; compile functions that forward calls with "
                "the parameters as arguments instead",
                stacklevel=3,
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
        check_generator(generator)
        self.generator = default_generator() if generator is None else generator
        self._history = History(check)
        self._keeping = Keeping(memory, memory_limit)
        self._watch = watch
        self._checkpoints = Checkpoints()
        self._recurrent = any(isinstance(m, nn.RNNBase) for m in model.modules())
        self._normalises_weights = normalises_weights(model)
        self._normalizes = has_statistics(model)
        self._gate = Gate()
        self._is_learner = False
        self._has_moved = False
        self._placed: list[
            Tensor
        ] = []  # the weights that this class put into a learner
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

    def clone(
        self: _Learner,
        first_order: bool | None = None,
        allow_unused: bool | None = None,
        allow_nograd: bool | None = None,
    ) -> _Learner:
        """Return a learner that starts at the current weights, on their autograd graph.

        Adapting the learner does not change the original or its buffers.

        Args:
            first_order: as in the constructor; None keeps the value given there.
            allow_unused: likewise.
            allow_nograd: likewise.

        Cost: a copy of the weights and buffers.
        """
        _check_flags(
            first_order=first_order,
            allow_unused=allow_unused,
            allow_nograd=allow_nograd,
        )
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
        learner._has_moved = False
        learner._keeping = self._keeping.fresh()
        learner._gate = Gate()
        learner._decide()
        with ordinary_functions():
            shared = {id(tensor) for tensor in self._references.tensors}
            new = {
                id(p): self._start(p)
                for p in self.module.parameters()
                if id(p) not in shared
            }
            new |= {id(b): b.clone() for b in self.module.buffers()}
            if learner._records:
                new = {key: learner._begun(t) for key, t in new.items()}
            learner.module = copy_structure(self.module, new)
        learner._placed = learner._weights()
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

    def _kernels(self) -> contextlib.AbstractContextManager[object]:
        """Return a context with kernels that have the derivatives that are needed."""
        if not self._twice:
            return contextlib.nullcontext()
        if not self._normalises_weights:
            return TwiceDifferentiable(self._recurrent)
        stack = contextlib.ExitStack()
        stack.enter_context(TwiceDifferentiable(self._recurrent))
        stack.enter_context(RightTwice())
        return stack

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
        loss: Tensor | Callable[[Any], Tensor],
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
            NotFiniteError: a ValueError, if the loss, its gradient, the weights or the
                hyperparameters are not finite, unless the algorithm was made with
                ``nan_policy="skip"``.
            RuntimeError: if the loss, computed again, gives a different result.

        The learner has not moved if an error is raised, or if a step is skipped.
        """
        _check_flags(
            first_order=first_order,
            allow_unused=allow_unused,
            allow_nograd=allow_nograd,
        )
        if not self._is_learner:
            raise TypeError(
                "adapt() moves the weights of a clone: expected a learner, got the "
                "original; call learner = meta.clone() first"
            )
        if callable(loss) and not isinstance(loss, Tensor):
            devices = {weight.device for weight in self._weights()}
            with Undo(None, devices, self.generator):
                with self._recording(buffers_of(self.module)):
                    value = loss(self)
                self._adapt(value, first_order, allow_unused)
            return
        self._adapt(loss, first_order, allow_unused)

    def _adapt(
        self, loss: Tensor, first_order: bool | None, allow_unused: bool | None
    ) -> None:
        """Make one inner step on a value of the loss."""
        if self._follows_way():
            self._check_unbroken()
        params = self._weights()
        stays = self._checkpoints.behind(loss)
        rates = matched(self.lr, self._names, params)
        random = self._update.estimator.random
        before = self.generator.get_state() if random else None
        try:
            moved = self._moved(
                Situation(
                    value=loss,
                    params=params,
                    names=self._names,
                    lr=rates,
                    first_order=self.first_order
                    if first_order is None
                    else first_order,
                    allow_unused=self.allow_unused
                    if allow_unused is None
                    else allow_unused,
                    seed=draw_seed(self.generator) if random else 0,
                )
            )
        except Exception as error:
            if before is not None:
                self.generator.set_state(before)
            if not isinstance(error, NotFiniteError):
                raise
            self._watch.skip()
            return
        self._put(moved, params, stays)

    def _put(
        self, new: Sequence[Tensor], old: Sequence[Tensor], copied: bool = False
    ) -> None:
        """Replace weights of this learner.

        Args:
            new: the new weights.
            old: the weights that they replace.
            copied: whether to leave the module that held the old ones unchanged.
        """
        with ordinary_functions():
            begun = [self._begun(p) if self._records else plain(p) for p in new]
            pairs = {id(p): b for p, b in zip(old, begun, strict=True)}
            if copied:
                self.module = copy_structure(self.module, pairs)
            else:
                exchange(self.module, pairs)
        self._placed = begun

    def _follows_way(self) -> bool:
        """Say whether a later gradient depends on the learner's way from its start."""
        return False

    def _check_unbroken(self) -> None:
        """Raise an error if weights were replaced by other means than ``adapt``."""
        now = self._weights()
        if [id(t) for t in now] != [id(t) for t in self._placed]:
            raise InputError(
                f"the learner's way from its first weights is broken: expected the "
                f"{len(self._placed)} weights that clone() and adapt() put into it, "
                f"got others, as after a head was replaced, frozen or unfrozen; do "
                f"that in the model, before clone()"
            )

    def _start(self, parameter: Tensor) -> Tensor:
        """Return what a new learner starts at in place of a parameter."""
        return parameter.clone()

    def _moved(self, now: Situation) -> list[Tensor]:
        """Make an inner step with this learner's settings; return the new weights."""
        return self._stepped(now, self._references.tensors).params

    def _stepped(self, now: Situation, hyperparameters: Sequence[Tensor]) -> Stepped:
        """Make an inner step that keeps the derivative with respect to λ."""
        stepped = inner_step(
            self._update,
            replace(
                now,
                hyperparameters=hyperparameters,
                again=self._again,
                insist=self._keeping.insist,
                keep=self._keeping.keeps,
                check=self._records and self._history.due(),
                gate=self._gate,
                watch=self._watch,
            ),
        )
        self._check_reached(stepped.reached, now.allow_unused)
        self._keeping.note(stepped)
        self._history.note(stepped)
        self._has_moved = True
        self._decide()
        return stepped

    @property
    def nan_policy(self) -> str:
        """What happens to what is not finite: ``"raise"`` or ``"skip"``."""
        return self._watch.nan_policy

    @property
    def skipped(self) -> int:
        """How many steps and hypergradients were left out, of all learners together."""
        return self._watch.skipped

    def _decide(self) -> None:
        """Decide whether later calls are recorded and later steps computed again."""
        tensors, first_order = self._kept()
        exact = bool(tensors) and self._update.estimator.exact
        self._twice = exact or not first_order
        self._again = self._twice and self._keeping.again
        self._records = needs_a_record(
            self._update,
            tensors,
            first_order,
            self._keeping,
            self._history,
        )

    def _kept(self) -> tuple[Sequence[Tensor], bool]:
        """Return λ of later steps, and whether to drop the curvature of the weights."""
        return self._references.tensors, self.first_order

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
            tensors = self._references.tensors
            names = [name_of(t, self.module, i) for i, t in enumerate(tensors)]
            check_reached(self._reached, tensors, names)

    def __deepcopy__(self: _Learner, memo: dict[int, Any]) -> _Learner:
        """Return a learner at the current weights, without their graph."""
        tensors = [*parameters_of(self.module), *buffers_of(self.module)]
        for child in self.module.modules():  # tensors that calls stored there
            tensors += [t for t in vars(child).values() if isinstance(t, Tensor)]
        for tensor in tensors:
            if tensor.grad_fn is not None or isinstance(tensor, TapedTensor):
                new = plain(tensor.detach()).clone()
                new.requires_grad_(tensor.requires_grad)
                memo[id(tensor)] = self._begun(new) if self._records else new
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """Return the state; the generator becomes its device and random state."""
        state = dict(vars(self))
        generator = state.pop("generator")
        if self._is_learner:
            state["_placed"] = self._weights()  # not what has been replaced since
        return {**state, "_generator": (generator.device, generator.get_state())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a state. A copy owns its module, so it may adapt the module."""
        state = dict(state)
        device, random_state = state.pop("_generator")
        super().__setstate__(state)
        self.generator = torch.Generator(device)
        self.generator.set_state(random_state)
        self._is_learner = True


def _check_flags(**flags: object) -> None:
    for name, flag in flags.items():
        if flag is not None:
            check_flag(flag, name)
