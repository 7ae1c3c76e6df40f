"""A bilevel problem as it was posed: over a dict of weights, or over a module.

Both answer the same questions: the inner loss now and as a function, one step, the
outer loss at the new weights.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from l2l_evograd.adaptation import Advance, advance
from l2l_evograd.detached import DetachedValues, holding
from l2l_evograd.functional import Circumstances, copy_structure
from l2l_evograd.graph import reaches
from l2l_evograd.hyperparameters import (
    Hyperparameters,
    adapted_names,
    find_hyperparameters,
    name_of,
)
from l2l_evograd.losses import InnerLoss, check_loss
from l2l_evograd.pullback import Wanted
from l2l_evograd.recording import RecordedView, Recording
from l2l_evograd.updates import Update

Loss = Callable[..., Tensor]


class ModuleProblem:
    """θ in a module: calls are recorded, buffers belong to a copy."""

    def __init__(
        self,
        model: nn.Module,
        hyperparameters: Hyperparameters,
        own_buffers: bool = True,
    ) -> None:
        self._given = hyperparameters
        self.hyperparameters = find_hyperparameters(hyperparameters, model)
        self.names = [name_of(t, model, i) for i, t in enumerate(self.hyperparameters)]
        names = adapted_names(model, self.hyperparameters)
        parameters = dict(model.named_parameters())
        values = [parameters[name].detach().requires_grad_() for name in names]
        self.recording = Recording(model, names, values, own_buffers)
        self.view = RecordedView(self.recording)
        self.weight_names = self.recording.names

    @property
    def values(self) -> list[Tensor]:
        """The present weights."""
        return self.recording.values

    def inner(self, loss: Loss, hold_detached: bool) -> tuple[Tensor, InnerLoss]:
        """Return the inner loss now, and as a function."""
        return self.recording.inner_loss_of(
            loss, self.view, self.hyperparameters, hold_detached
        )

    def advance(
        self,
        value: Tensor,
        inner: InnerLoss,
        rule: Update,
        wanted: Wanted,
        seed: int,
        keep_graph: bool,
        allow_unused: bool,
        retain_graph: bool = False,
        extras: Sequence[Tensor] = (),
    ) -> Advance:
        """Take one inner step."""
        with torch._C.DisableTorchFunctionSubclass():
            new = advance(
                value,
                inner,
                self.values,
                rule,
                wanted,
                seed,
                self.weight_names,
                keep_graph,
                allow_unused,
                retain_graph,
                extras,
            )
            self.recording.move(new.params)
        return new

    def outer(self, loss: Loss) -> Tensor:
        """Return the outer loss at the present weights."""
        module = self.recording.module
        exchanged = dict(zip(map(id, self.recording.tracked), self.values, strict=True))
        exchanged |= {id(b): b.detach().clone() for b in module.buffers()}
        return loss(copy_structure(module, exchanged))

    def structured(self, tensors: list[Tensor]) -> Any:
        """Return one tensor for each of λ in the structure in which λ was given."""
        return structured_as(self._given, tensors)


class DictProblem:
    """θ in a dict: the losses are functions of both, and look after the rest."""

    def __init__(self, params: Mapping[str, Tensor], hyperparameters: Any) -> None:
        if not isinstance(params, Mapping) or not params:
            raise TypeError(
                f"expected params to be a dict of tensors or a module, got "
                f"{type(params).__name__}; use dict(model.named_parameters())"
            )
        self._given = hyperparameters
        self.weight_names = list(params)
        self.values = [p.detach().requires_grad_() for p in params.values()]
        originals = tensors_of(hyperparameters)
        shared = {t.data_ptr() for t in params.values() if t.numel()}
        for position, tensor in enumerate(originals):
            if tensor.numel() and tensor.data_ptr() in shared:
                raise ValueError(
                    f"hyperparameter {position} {tuple(tensor.shape)} is among the "
                    f"weights as well: expected each tensor to be adapted or a "
                    f"hyperparameter, not both; take it out of params"
                )
        self.hyperparameters = [t.detach().requires_grad_() for t in originals]
        self.names = [f"hyperparameter {i}" for i in range(len(originals))]

    def inner(self, loss: Loss, hold_detached: bool) -> tuple[Tensor, InnerLoss]:
        """Return the inner loss now, and as a function."""
        circumstances = Circumstances.now(t.device for t in self.values)

        def call(weights: Sequence[Tensor], leaves: Sequence[Tensor]) -> Tensor:
            named = dict(zip(self.weight_names, weights, strict=True))
            return loss(named, self.structured(list(leaves)))

        def again(weights: Sequence[Tensor], leaves: Sequence[Tensor]) -> Tensor:
            with circumstances.again(), holding(detached.values, hold_detached):
                return call(weights, leaves)

        with DetachedValues() as detached:
            value = check_loss(call(self.values, self.hyperparameters))
        hits = reaches(value, self.hyperparameters)
        used = [p for p, hit in enumerate(hits) if hit]
        everything = list(self.hyperparameters)

        def evaluate(weights: Sequence[Tensor], leaves: Sequence[Tensor]) -> Tensor:
            # λ that this loss does not use comes in as it is.
            filled = [t.detach() for t in everything]
            for position, leaf in zip(used, leaves, strict=True):
                filled[position] = leaf
            return again(weights, filled)

        inputs = [everything[p] for p in used]
        return value, InnerLoss(evaluate, inputs, packed=detached.packed)

    def advance(
        self,
        value: Tensor,
        inner: InnerLoss,
        rule: Update,
        wanted: Wanted,
        seed: int,
        keep_graph: bool,
        allow_unused: bool,
    ) -> Advance:
        """Take one inner step."""
        new = advance(
            value,
            inner,
            self.values,
            rule,
            wanted,
            seed,
            self.weight_names,
            keep_graph,
            allow_unused,
        )
        self.values = new.params
        return new

    def outer(self, loss: Loss) -> Tensor:
        """Return the outer loss at the present weights."""
        named = dict(zip(self.weight_names, self.values, strict=True))
        return loss(named, self.structured(list(self.hyperparameters)))

    def structured(self, tensors: list[Tensor]) -> Any:
        """Return one tensor for each of λ in the structure in which λ was given."""
        return structured_as(self._given, tensors)


def structured_as(given: object, tensors: list[Tensor]) -> Any:
    """Return ``tensors`` as a tensor, a dict or a list, whichever ``given`` is."""
    if isinstance(given, Tensor):
        return tensors[0]
    if isinstance(given, Mapping) and len(given) == len(tensors):
        return dict(zip(given, tensors, strict=True))
    return tensors


def tensors_of(hyperparameters: object) -> list[Tensor]:
    """Return λ as a list of tensors.

    Raises:
        TypeError: if something in it is no tensor.
        ValueError: if there is none.
    """
    if isinstance(hyperparameters, Tensor):
        found: list[Any] = [hyperparameters]
    elif isinstance(hyperparameters, Mapping):
        found = list(hyperparameters.values())
    elif isinstance(hyperparameters, Sequence) and not isinstance(hyperparameters, str):
        found = list(hyperparameters)
    else:
        raise TypeError(
            f"expected hyperparameters to be a tensor, a sequence or a dict of "
            f"tensors, got {type(hyperparameters).__name__}"
        )
    for item in found:
        if not isinstance(item, Tensor):
            raise TypeError(
                f"expected every hyperparameter to be a tensor, got "
                f"{type(item).__name__}"
            )
    if not found:
        raise ValueError("expected at least one hyperparameter, got none")
    return found
