"""Modules as functions of their tensors, and the circumstances of a call.

Two things stand between a module and a function of its parameters. The module must run
with other tensors without being touched: :func:`copy_structure` makes a second module
object, with its own dictionaries, around any tensors one likes. And the call must come
out the same when made again: :class:`Circumstances` holds the random state, autocast
and grad mode in which it was first made.
"""

import contextlib
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


def copy_structure(
    module: nn.Module, tensors: Mapping[int, Tensor] | None = None
) -> nn.Module:
    """Return a module that shares everything with ``module`` but its own identity.

    Every submodule is a new object of the same class with dictionaries of its own, so
    that flags, buffers and attributes set on the copy stay there. Parameters and
    buffers are the same tensors, except those exchanged; a tensor tied in two places is
    exchanged in both. Lists, dictionaries and bound methods that refer to submodules
    refer to the copies.

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
            # Most attributes are flags; this runs once for each call of a learner.
            whole = type(value) in _IMMUTABLE
            new.__dict__[key] = value if whole else self.of_value(value)
        # module.compile() stores a callable bound to the original module.
        new.__dict__["_compiled_call_impl"] = None
        return new

    def of_value(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._exchanged.get(id(value), value)
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
    if isinstance(module, torch.jit.ScriptModule):
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


@dataclass(frozen=True)
class Circumstances:
    """What a call depends on besides its arguments, so that it can be made again.

    Attributes:
        random: state of the global random generator of every device concerned.
        autocast: device type -> dtype, where autocast was on.
        grad: whether grad mode was on.
    """

    random: dict[torch.device, Tensor]
    autocast: dict[str, torch.dtype]
    grad: bool

    @classmethod
    def now(cls, devices: Iterable[torch.device]) -> "Circumstances":
        """Take down the present state for ``devices`` and the CPU."""
        concerned = {torch.device("cpu"), *devices}
        kinds = {device.type for device in concerned}
        return cls(
            random={device: _random_state(device) for device in concerned},
            autocast={
                kind: torch.get_autocast_dtype(kind)
                for kind in kinds
                if torch.amp.is_autocast_available(kind)
                and torch.is_autocast_enabled(kind)
            },
            grad=torch.is_grad_enabled(),
        )

    @contextlib.contextmanager
    def again(self, restore_random: bool = True) -> Iterator[None]:
        """Recreate the circumstances; grad mode stays off where it is off now.

        Args:
            restore_random: put the random state back afterwards.
        """
        before = {device: _random_state(device) for device in self.random}
        for device, state in self.random.items():
            _set_random_state(device, state)
        try:
            with contextlib.ExitStack() as stack:
                for kind in {device.type for device in self.random}:
                    self._enter_autocast(stack, kind)
                stack.enter_context(
                    torch.set_grad_enabled(self.grad and torch.is_grad_enabled())
                )
                yield
        finally:
            if restore_random:
                for device, state in before.items():
                    _set_random_state(device, state)

    def _enter_autocast(self, stack: contextlib.ExitStack, kind: str) -> None:
        if not torch.amp.is_autocast_available(kind):
            return
        wanted = self.autocast.get(kind)
        if wanted is None and not torch.is_autocast_enabled(kind):
            return
        # Without the cache: it would keep casts of candidates alive.
        stack.enter_context(
            torch.autocast(
                kind,
                dtype=wanted,
                enabled=wanted is not None,
                cache_enabled=False,
            )
        )


@contextlib.contextmanager
def preserved_random_state(devices: Iterable[torch.device]) -> Iterator[None]:
    """Leave the global random state of ``devices`` and the CPU as it was."""
    before = {d: _random_state(d) for d in {torch.device("cpu"), *devices}}
    try:
        yield
    finally:
        for device, state in before.items():
            _set_random_state(device, state)


def _random_state(device: torch.device) -> Tensor:
    if device.type == "cpu":
        return torch.get_rng_state()
    module = torch.get_device_module(device)
    if device.index is None:
        state: Tensor = module.get_rng_state()
    else:
        state = module.get_rng_state(device)
    return state


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cpu":
        torch.set_rng_state(state)
    elif device.index is None:
        torch.get_device_module(device).set_rng_state(state)
    else:
        torch.get_device_module(device).set_rng_state(state, device)
