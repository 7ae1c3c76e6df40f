"""Which tensors are λ: how users name them, and which of them a loss uses.

Hyperparameters are named as tensors, as modules, or by the names that parameters have
in the model. They are never perturbed and never adapted.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

Hyperparameters = Tensor | nn.Module | str | Iterable["Tensor | nn.Module | str"]


def find_hyperparameters(
    named: Hyperparameters | None, model: nn.Module | None = None
) -> list[Tensor]:
    """Return the hyperparameters as tensors, each once.

    Args:
        named: a tensor, a module (all its parameters), a name of a parameter or
            submodule of ``model``, or an iterable of these.
        model: where names are looked up.

    Raises:
        TypeError: for any other type.
        ValueError: for an unknown name, an empty choice, or a tensor that does not
            require grad.
    """
    if named is None:
        return []
    found: dict[int, Tensor] = {}
    for item in listed(named):
        for tensor in _tensors(item, model):
            if not tensor.requires_grad:
                raise ValueError(
                    f"expected hyperparameters that require grad, got one of shape "
                    f"{tuple(tensor.shape)} that does not; call requires_grad_() on it"
                )
            found[id(tensor)] = tensor
    if not found:
        raise ValueError(
            "expected at least one hyperparameter, got an empty choice; leave "
            "hyperparameters=None if there are none"
        )
    return list(found.values())


def listed(named: object) -> list[Any]:
    """Return a choice of hyperparameters as a list of tensors, modules and names."""
    if isinstance(named, Tensor | nn.Module | str):
        return [named]
    if isinstance(named, Mapping):
        return list(named.values())
    if isinstance(named, Iterable):
        return list(named)
    raise TypeError(
        f"expected hyperparameters to be tensors, modules or names, got "
        f"{type(named).__name__}"
    )


def _tensors(item: object, model: nn.Module | None) -> list[Tensor]:
    if isinstance(item, Tensor):
        return [item]
    if isinstance(item, nn.Module):
        return list(item.parameters())
    if not isinstance(item, str):
        raise TypeError(
            f"expected hyperparameters to be tensors, modules or names, got an item "
            f"of type {type(item).__name__}"
        )
    parameters = {} if model is None else dict(model.named_parameters())
    chosen: list[Tensor] = [
        tensor
        for name, tensor in parameters.items()
        if name == item or name.startswith(item + ".")
    ]
    if not chosen:
        raise ValueError(
            f"expected the name of a parameter or submodule of the model, got "
            f"{item!r}; the model has {', '.join(parameters) or 'no parameters'}"
        )
    return chosen


def adapted_names(model: nn.Module, hyperparameters: Sequence[Tensor]) -> list[str]:
    """Return the names of θ: parameters that require grad and are not among λ.

    Raises:
        ValueError: if there are none.
    """
    excluded = {id(tensor) for tensor in hyperparameters}
    names = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) not in excluded
    ]
    if not names:
        raise ValueError(
            f"the model has no trainable parameters to adapt: expected at least one "
            f"parameter of {type(model).__name__} that requires grad and is not among "
            f"the hyperparameters"
        )
    return names


def check_reached(
    reached: Sequence[bool], hyperparameters: Sequence[Tensor], names: Sequence[str]
) -> None:
    """Raise an error for hyperparameters that the inner loss does not depend on.

    Raises:
        ValueError: if there are any; names them.
    """
    missing = [
        f"{name} {tuple(tensor.shape)}"
        for hit, tensor, name in zip(reached, hyperparameters, names, strict=True)
        if not hit
    ]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ValueError(
            f"the inner loss does not depend on {len(missing)} of the "
            f"{len(reached)} hyperparameters: {shown}. Their hypergradient would be "
            f"0. Check that the code that uses them is switched on in the inner loss, "
            f"or pass allow_unused=True"
        )


def check_no_hooks(hyperparameters: Sequence[Tensor]) -> None:
    """Raise an error for λ with a gradient hook, where parts of dL/dλ are summed up.

    The hook would be called for each part, and its result would be wrong.

    Raises:
        ValueError: if there are any.
    """
    if any(tensor._backward_hooks for tensor in hyperparameters):
        raise ValueError(
            "a hyperparameter has a gradient hook, which would be called for parts of "
            "its gradient: expected none; change .grad after backward(), or use "
            "register_post_accumulate_grad_hook()"
        )


def name_of(tensor: Tensor, model: nn.Module | None, position: int) -> str:
    """Return the tensor's name in the model, or its place in the list of λ."""
    if model is not None:
        for name, parameter in model.named_parameters():
            if parameter is tensor:
                return name
    return f"hyperparameter {position}"


class References:
    """Tensors that a deep copy of their holder shares, unless copied before it."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self.tensors = tensors

    def __deepcopy__(self, memo: dict[int, Any]) -> "References":
        # Tensors inside the model have been copied before, because a module's
        # submodules come before its other attributes. Other tensors are shared.
        return References([memo.get(id(t), t) for t in self.tensors])
