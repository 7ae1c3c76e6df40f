"""Copies of a module's structure that hold other tensors; the original is unchanged.

:func:`copy_structure` makes a new object with its own dictionaries for every submodule.
:func:`exchange` puts other tensors into such a copy.
"""

import types
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, jit, nn


def copy_structure(
    module: nn.Module, tensors: Mapping[int, Tensor] | None = None
) -> nn.Module:
    """Return a copy of ``module`` that shares its tensors, except those exchanged.

    Every submodule is a new object of the same class with its own dictionaries, so that
    flags, buffers and attributes set on the copy do not change the original. Parameters
    and buffers are the same tensors, except those exchanged; a tensor tied in two
    places is exchanged in both. Tensors in other attributes are not exchanged, as in
    ``torch.func.functional_call``. Lists, dictionaries and bound methods that refer to
    submodules refer to the copies.

    Args:
        module: any module; hooks and parametrizations are copied too.
        tensors: ``id(old tensor)`` -> tensor to put in its place.

    Returns:
        The copy. ``module`` is not changed.

    Raises:
        TypeError: for scripted modules and the wrapper that ``torch.compile(module)``
            returns, whose forward is bound to the original parameters.

    Cost: a few microseconds per submodule; no tensor is copied.
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
            # Most attributes are flags or empty. This loop runs for every learner.
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
            "expected a module, got the result of torch.compile(module), whose forward "
            "is bound to the original parameters; pass the module itself, and compile "
            "functions that its forward calls with the parameters as arguments"
        )


def exchange(module: nn.Module, new: Mapping[int, Tensor]) -> None:
    """Put other tensors in place of a copy's parameters.

    A tied tensor is exchanged everywhere. Other references to an old tensor, such as a
    list of the initial weights, are not changed.

    Args:
        module: a copy, see :func:`copy_structure`; it is changed.
        new: ``id(old tensor)`` -> tensor to put in its place.
    """
    for child in module.modules():
        for name, tensor in child._parameters.items():
            if id(tensor) in new:
                child._parameters[name] = new[id(tensor)]  # type: ignore[assignment]  # not a leaf, so not a Parameter
        if "_flat_weights" in child.__dict__:
            _renew_flat_weights(child)


def _renew_flat_weights(child: nn.Module) -> None:
    """Fill a recurrent layer's list of its weights with the current weights."""
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
    """Say whether any submodule normalises with running statistics."""
    return any(isinstance(child, _NORMS) for child in module.modules())


def renew_statistics(module: nn.Module) -> None:
    """Give batch normalisation in training mode new tensors for its statistics.

    In evaluation mode, batch normalisation saves its running statistics for the
    backward pass. In training mode it writes to them, and autograd does not notice.
    Without new tensors, the backward pass of an earlier call would use the statistics
    of a later call, and its gradients would be wrong.

    Args:
        module: a copy, see :func:`copy_structure`; it is changed.
    """
    for child in module.modules():
        if isinstance(child, _NORMS) and child.training:
            for name in ("running_mean", "running_var"):
                statistic = child._buffers.get(name)
                if statistic is not None:
                    child._buffers[name] = statistic.clone()
