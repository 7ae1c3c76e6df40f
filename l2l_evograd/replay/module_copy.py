"""A second module object around any tensors, so that the first is not touched.

:func:`copy_structure` gives every submodule a new identity and dictionaries of its own.
:func:`exchange` puts other tensors into such a copy.
"""

import types
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, jit, nn


def copy_structure(
    module: nn.Module, tensors: Mapping[int, Tensor] | None = None
) -> nn.Module:
    """Return a module that shares everything with ``module`` but its own identity.

    Every submodule is a new object of the same class with dictionaries of its own, so
    that flags, buffers and attributes set on the copy stay there. Parameters and
    buffers are the same tensors, except those exchanged; a tensor tied in two places is
    exchanged in both. Tensors in other attributes stay, as for
    ``torch.func.functional_call``. Lists, dictionaries and bound methods that refer to
    submodules refer to the copies.

    Args:
        module: any module; hooks and parametrizations come along.
        tensors: ``id(old tensor)`` -> tensor to put in its place.

    Returns:
        The copy. ``module`` is not changed.

    Raises:
        TypeError: for scripted modules and the wrapper that ``torch.compile(module)``
            returns, whose forward is bound to the original parameters.

    Cost: a few microseconds for a submodule; no tensor is copied.
    """
    return _Copies(module, tensors or {}).of_module(module)


_NORMS = (nn.modules.batchnorm._NormBase,)
_IMMUTABLE = frozenset({bool, int, float, str, type(None)})


class _Copies:
    """The copies made so far; a class, because closures that call each other leak."""

    def __init__(self, module: nn.Module, exchanged: Mapping[int, Tensor]) -> None:
        self._exchanged = exchanged
        self._members = {id(child) for child in module.modules()}
        self._copies: dict[int, nn.Module] = {}

    def of_module(self, child: nn.Module) -> nn.Module:
        if id(child) in self._copies:
            return self._copies[id(child)]
        _refuse_bound(child)
        new: nn.Module = object.__new__(type(child))
        self._copies[id(child)] = new
        for key, value in vars(child).items():
            # Most attributes are flags or empty; this runs for every learner.
            if type(value) in _IMMUTABLE:
                new.__dict__[key] = value
            elif key in ("_parameters", "_buffers"):
                new.__dict__[key] = {
                    name: self._exchanged.get(id(tensor), tensor)
                    for name, tensor in value.items()
                }
            elif isinstance(value, dict) and not value:
                new.__dict__[key] = value.copy()
            else:
                new.__dict__[key] = self.of_value(value)
        if "_flat_weights" in new.__dict__:
            _renew_flat_weights(new)
        # module.compile() stores a callable bound to the original module.
        new.__dict__["_compiled_call_impl"] = None
        return new

    def of_value(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value
        if isinstance(value, nn.Module):
            return self.of_module(value) if id(value) in self._members else value
        if isinstance(value, types.MethodType) and id(value.__self__) in self._members:
            owner: Any = value.__self__
            return types.MethodType(value.__func__, self.of_module(owner))
        kind = type(value)
        if kind is list or kind is tuple:
            return kind(self.of_value(item) for item in value)
        if isinstance(value, dict) and hasattr(value, "copy"):
            new = value.copy()
            if new:
                new.update({key: self.of_value(item) for key, item in value.items()})
            return new
        if kind is set:
            return value.copy()
        return value


def _refuse_bound(module: nn.Module) -> None:
    if isinstance(module, jit.ScriptModule):
        raise TypeError(
            f"{type(module).__name__} is a scripted module, which cannot be called "
            f"with other parameters; pass the module it was scripted from"
        )
    if "_orig_mod" in module._modules:
        raise TypeError(
            "got what torch.compile(module) returned, whose forward is bound to the "
            "original parameters; pass the module itself, and compile functions that "
            "its forward calls with the parameters as arguments"
        )


def exchange(module: nn.Module, new: Mapping[int, Tensor]) -> None:
    """Put other tensors in place of a copy's parameters.

    A tied tensor is exchanged everywhere. What else holds one of them, such as a list
    of the weights that training started from, keeps it.

    Args:
        module: a copy, see :func:`copy_structure`; it is changed.
        new: ``id(old tensor)`` -> tensor to put in its place.
    """
    for child in module.modules():
        for name, tensor in child._parameters.items():
            if id(tensor) in new:
                child._parameters[name] = new[id(tensor)]  # type: ignore[assignment]  # no leaf, so no Parameter
        if "_flat_weights" in child.__dict__:
            _renew_flat_weights(child)


def _renew_flat_weights(child: nn.Module) -> None:
    """Let a recurrent layer's list of its weights follow the weights themselves."""
    names: Any = child.__dict__["_flat_weights_names"]
    child.__dict__["_flat_weights"] = [getattr(child, name, None) for name in names]


def is_compiled_in_place(module: nn.Module) -> bool:
    """Say whether ``compile()`` was called on the module or on a part of it."""
    return any(child._compiled_call_impl is not None for child in module.modules())


def parameters_of(module: nn.Module) -> Iterator[Tensor]:
    """Return the parameters of all submodules; tied ones more than once."""
    for child in module.modules():
        for parameter in child._parameters.values():
            if parameter is not None:
                yield parameter


def buffers_of(module: nn.Module) -> Iterator[Tensor]:
    """Return the buffers of all submodules; tied ones more than once."""
    for child in module.modules():
        for buffer in child._buffers.values():
            if buffer is not None:
                yield buffer


def has_statistics(module: nn.Module) -> bool:
    """Say whether any part normalises with running statistics."""
    return any(isinstance(child, _NORMS) for child in module.modules())


def renew_statistics(module: nn.Module) -> None:
    """Let batch normalisation in training mode write to statistics of its own.

    In evaluation mode it saves its running statistics for the backward pass, and in
    training mode writes to them without autograd noticing. A graph that is kept from
    an earlier call would be completed with statistics of a later one.

    Args:
        module: a copy, see :func:`copy_structure`; it is changed.
    """
    for child in module.modules():
        if isinstance(child, _NORMS) and child.training:
            for name in ("running_mean", "running_var"):
                statistic = child._buffers.get(name)
                if statistic is not None:
                    child._buffers[name] = statistic.clone()
