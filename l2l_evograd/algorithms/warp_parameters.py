"""Which parameters are φ, the warp parameters, and that none of them is adapted."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from l2l_evograd.checks import InputError
from l2l_evograd.hyperparameters import (
    Hyperparameters,
    find_hyperparameters,
    listed,
)
from l2l_evograd.warp_layers import WarpLayer2d, warp_layers


def find_warp_parameters(
    named: Hyperparameters | None, model: nn.Module
) -> list[Tensor]:
    """Return the warp parameters φ, each once.

    Args:
        named: tensors, modules, or names in the model; None: the model's warp layers.
        model: the model that contains them.

    Raises:
        TypeError, ValueError: as :func:`~l2l_evograd.hyperparameters.
            find_hyperparameters`.
        ValueError: if there are none, or if a warp layer is also adapted.
    """
    items = [warp_layers(model)] if named is None else listed(named)
    if not any(
        list(i.parameters()) if isinstance(i, nn.Module) else True for i in items
    ):
        raise InputError(
            "expected a model with warp layers, got none; call add_warp_layers(model), "
            "or put layers of your own into the model and name them: WarpGrad(model, "
            "lr, warp=...)"
        )
    found = find_hyperparameters(items, model)
    chosen = {id(tensor) for tensor in found}
    _check_not_tied(items, model, chosen)
    _check_whole(model, chosen)
    return found


def _check_not_tied(items: Sequence[Any], model: nn.Module, chosen: set[int]) -> None:
    """Raise an error if a layer that was not named holds a warp parameter."""
    if any(isinstance(item, Tensor) for item in items):
        return  # wherever the tensor occurs, it was named
    modules = dict(model.named_modules())
    named = [
        item
        if isinstance(item, nn.Module)
        else modules.get(item) or _owner(item, modules)
        for item in items
    ]
    covered = {id(child) for module in named for child in module.modules()}
    for name, child in modules.items():
        for key, tensor in child.named_parameters(recurse=False):
            if id(tensor) in chosen and id(child) not in covered:
                raise InputError(
                    f"a warp layer shares {_joined(name, key)} with a layer that is "
                    f"adapted: expected layers without common parameters; untie them, "
                    f"or name both in warp="
                )


def _check_whole(model: nn.Module, chosen: set[int]) -> None:
    """Raise an error if only a part of a warp layer was named."""
    for name, layer in model.named_modules():
        if isinstance(layer, WarpLayer2d):
            for key, tensor in layer.named_parameters():
                if id(tensor) not in chosen and tensor.requires_grad:
                    raise InputError(
                        f"{_joined(name, key)} belongs to a warp layer, but is not "
                        f"among the warp parameters, so that adaptation would move it: "
                        f"expected warp= to name whole warp layers; leave warp out, or "
                        f"freeze the parameter with requires_grad_(False)"
                    )


def _owner(name: str, modules: dict[str, nn.Module]) -> nn.Module:
    return modules[name.rpartition(".")[0]]


def _joined(module: str, key: str) -> str:
    return f"{module}.{key}" if module else key
