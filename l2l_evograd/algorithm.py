"""``EvoGradMetaOptimizer``: EvoGrad behind the interface of learn2learn's algorithms.

The one place that knows learn2learn's conventions: ``clone``, ``adapt``, call, the
arguments of ``l2l.algorithms.MAML``, ``module.*`` in the state dict, attributes that
fall through to the model. learn2learn itself is not imported.
"""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from l2l_evograd.adaptation import advance, default_generator, make_update
from l2l_evograd.estimators import Estimator
from l2l_evograd.functional import copy_structure
from l2l_evograd.hyperparameters import (
    Hyperparameters,
    adapted_names,
    assign_roles,
    check_reached,
    find_hyperparameters,
    name_of,
)
from l2l_evograd.losses import check_loss
from l2l_evograd.perturbations import draw_seed
from l2l_evograd.rates import Rates, as_attribute, matched
from l2l_evograd.recording import Recording, Wrapper
from l2l_evograd.stored import Shelf


class EvoGradMetaOptimizer(Wrapper):
    """Adapt clones of a model and send gradients to its weights and to λ.

    ``learner = meta.clone()``; ``learner.adapt(loss)`` makes the inner step

        gradient:   θ' = θ − lr · ∇_θ ℓ(θ, λ)
        evolution:  θ* = Σ_k softmax(−ℓ/τ)_k (θ + ε_k), ℓ_k = ℓ(θ + ε_k, λ)

    and ``loss_fn(learner(x_query), y_query).backward()`` fills ``.grad`` of λ and,
    where wanted, of the model's own parameters.

    Args:
        model: the module to adapt. It is wrapped, not copied or changed.
        lr: inner learning rate η, positive; plays no part in ``update="evolution"``.
            Or learned rates: a tensor, or one for each adapted parameter, that has its
            shape or broadcasts to it. Those that are parameters become parameters of
            this module, as in learn2learn's ``MetaSGD``.
        first_order: governs the initial weights, and tensors from outside the learner
            that require grad: True drops the curvature of the inner step, False is
            exact. None: False as in MAML, unless hyperparameters are named, then True.
        allow_unused: whether the inner loss may leave adapted parameters or
            hyperparameters unused. None: as ``allow_nograd``.
        allow_nograd: accepted for MAML's sake. Parameters with ``requires_grad=False``
            are left as they are in any case.
        hyperparameters: λ, never adapted and never perturbed: tensors inside or
            outside the model, a module, names in the model, or an iterable of these.
        update: ``"gradient"`` or ``"evolution"`` (the paper's Algorithm 1, whose
            population then governs everything).
        estimator: of the hypergradient: ``EvoGrad(...)``, ``Guided(...)``, ``Exact()``
            or one of the names ``"evograd"``, ``"guided"``, ``"exact"``. None:
            ``Guided()`` for ``"gradient"``, ``EvoGrad()`` for ``"evolution"``.
        generator: of the perturbations. None: one seeded as torch was, without drawing
            from torch's own.

    Raises:
        TypeError: for a model that is no module, is scripted or is what
            ``torch.compile(module)`` returned, or an estimator that is none.
        ValueError: for a learning rate that is not positive and finite, unknown
            names, or a model with nothing to adapt.

    Cost:
        ``adapt``: one forward pass for each call of the learner and one backward pass;
        evolution K passes instead. ``backward``: what the estimator costs, one step at
        a time; between the two, a step keeps the weights from before it.

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
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"expected model to be a torch.nn.Module, got {type(model).__name__}"
            )
        copy_structure(model)  # refuses what no clone could be made of
        super().__init__(model)
        if any(child._compiled_call_impl is not None for child in model.modules()):
            warnings.warn(
                "clones run without the effect of module.compile(), which is bound to "
                "the original parameters; compile functions that forward calls with "
                "the parameters as arguments instead",
                stacklevel=2,
            )
        self.lr = as_attribute(lr)
        tensors = find_hyperparameters(hyperparameters, model)
        self._references = _References(tensors)
        self.first_order = bool(tensors) if first_order is None else first_order
        self.allow_nograd = allow_nograd
        self.allow_unused = allow_nograd if allow_unused is None else allow_unused
        self.update = update
        self.estimator = estimator
        # The rate has been checked as far as can be without the parameters.
        make_update(update, 1.0, estimator)
        if update == "evolution" and not isinstance(self.lr, float):
            raise ValueError(
                "expected lr to be a number for update='evolution', in which it plays "
                "no part, got tensors; learned rates go with update='gradient'"
            )
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(
                f"expected generator to be a torch.Generator, got "
                f"{type(generator).__name__}"
            )
        self.generator = default_generator() if generator is None else generator
        self._recording: Recording | None = None
        self._shelf = Shelf()
        self._reached = [False] * len(tensors)
        parameters = dict(model.named_parameters())
        names = self._adapted_names()
        matched(self.lr, names, [parameters[name] for name in names])

    @property
    def hyperparameters(self) -> list[Tensor]:
        """λ, as the tensors that receive ``.grad``."""
        return list(self._references.tensors)

    def clone(
        self,
        first_order: bool | None = None,
        allow_unused: bool | None = None,
        allow_nograd: bool | None = None,
    ) -> "EvoGradMetaOptimizer":
        """Return a learner that starts at the present weights, on their graph.

        Adapting the learner leaves the original as it is, buffers included.

        Args:
            first_order: as at construction; None keeps what was given there.
            allow_unused: likewise.
            allow_nograd: likewise.

        Cost: a copy of the weights and buffers.
        """
        names = self._adapted_names()
        parameters = dict(self.module.named_parameters())
        with torch._C.DisableTorchFunctionSubclass():
            values = [parameters[name].clone() for name in names]
            recording = Recording(
                self.module,
                names,
                values,
                follow_detached=self.update == "evolution",
            )
        learner = copy.copy(self)
        # A shallow copy shares the dictionaries in which a module keeps its parts.
        learner.__dict__ = {
            key: value.copy() if isinstance(value, dict) else value
            for key, value in vars(self).items()
        }
        learner.module = recording.module
        learner._recording = recording
        learner._reached = list(self._reached)
        if first_order is not None:
            learner.first_order = first_order
        if allow_unused is not None:
            learner.allow_unused = allow_unused
        if allow_nograd is not None:
            learner.allow_nograd = allow_nograd
        return learner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model; a learner's outputs remember how they were computed."""
        if self._recording is None:
            return self.module(*args, **kwargs)
        return self._recording.call(*args, **kwargs)

    def adapt(
        self,
        loss: Tensor | Callable[["EvoGradMetaOptimizer"], Tensor],
        first_order: bool | None = None,
        allow_unused: bool | None = None,
        allow_nograd: bool | None = None,
    ) -> None:
        """Make one inner step, in place of this learner's weights.

        Args:
            loss: scalar tensor computed from ``learner(...)``, or a callable that is
                given the learner and returns one.
            first_order: for this step only; None keeps the learner's.
            allow_unused: likewise.
            allow_nograd: accepted for MAML's sake.

        Raises:
            TypeError: if this is no clone, or the loss is no tensor or has lost its
                history.
            ValueError: if the loss is not a finite scalar, or does not use some of
                the adapted parameters or hyperparameters.
        """
        del allow_nograd
        recording = self._recording
        if recording is None:
            raise TypeError(
                "adapt() moves the weights of a clone: expected a learner, got the "
                "original; call learner = meta.clone() first"
            )
        first_order = self.first_order if first_order is None else first_order
        allow_unused = self.allow_unused if allow_unused is None else allow_unused
        hold = self.update == "gradient"
        if callable(loss) and not isinstance(loss, Tensor):
            value, inner = recording.inner_loss_of(
                loss, self, self.hyperparameters, hold
            )
        else:
            value, inner = check_loss(loss), recording.inner_loss(loss, hold)
        with torch._C.DisableTorchFunctionSubclass():
            wanted, reached = assign_roles(inner, self.hyperparameters, first_order)
            self._check_reached(reached, allow_unused)
            rates = matched(self.lr, recording.names, recording.values)
            self._shelf.clear()
            new = advance(
                value,
                inner,
                recording.values,
                make_update(self.update, rates, self.estimator),
                wanted,
                draw_seed(self.generator),
                recording.names,
                keep_graph=not recording.moved,
                allow_unused=allow_unused,
            )
            self._shelf.put(new.stored)
            recording.move(new.params)

    def _check_reached(self, reached: list[bool], allow_unused: bool) -> None:
        # What an earlier step reached is not lost if this one does without it.
        self._reached = [a or b for a, b in zip(self._reached, reached, strict=True)]
        if not allow_unused:
            tensors = self.hyperparameters
            names = [name_of(t, self.module, i) for i, t in enumerate(tensors)]
            check_reached(self._reached, tensors, names)

    def _adapted_names(self) -> list[str]:
        if self._recording is not None:
            return self._recording.names
        return adapted_names(self.module, self.hyperparameters)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with the generator as its device and random state."""
        state = dict(vars(self))
        generator = state.pop("generator")
        return {**state, "_generator": (generator.device, generator.get_state())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state back."""
        state = dict(state)
        device, random_state = state.pop("_generator")
        super().__setstate__(state)
        self.generator = torch.Generator(device)
        self.generator.set_state(random_state)


class _References:
    """Tensors that stay the same objects when their holder is deep-copied alone."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self.tensors = tensors

    def __deepcopy__(self, memo: dict[int, Any]) -> "_References":
        # Those inside the model have been copied by now, since a module keeps its
        # submodules before its other attributes; the rest belong to somebody else.
        return _References([memo.get(id(t), t) for t in self.tensors])
