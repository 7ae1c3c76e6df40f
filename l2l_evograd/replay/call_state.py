"""What a call depends on besides its arguments: random state, kernels, autocast."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor


class RandomState:
    """The state of one random generator, from which calls can be repeated.

    Attributes:
        device: the device of the generator.
        state: the state, as ``get_rng_state`` returns it.
    """

    __slots__ = ("device", "state")

    def __init__(self, device: torch.device, state: Tensor) -> None:
        self.device = device
        self.state = state

    @classmethod
    def of(cls, args: Iterable[Any], kwargs: dict[str, Any]) -> "RandomState":
        """Return the state that a call with these arguments will draw from."""
        items = [*args, *kwargs.values()]
        for item in items:
            if isinstance(item, torch.Generator):
                return cls(item.device, item.get_state())
        devices = [item.device for item in items if isinstance(item, Tensor)]
        device = devices[0] if devices else torch.device("cpu")
        return cls(device, random_state(device))

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """Draw the same numbers in the body, and restore the state afterwards."""
        before = random_state(self.device)
        set_random_state(self.device, self.state)
        try:
            yield
        finally:
            set_random_state(self.device, before)


@contextlib.contextmanager
def preserved_random_state(devices: Iterable[torch.device]) -> Iterator[None]:
    """Restore the global random state of ``devices`` and the CPU after the body."""
    before = {d: random_state(d) for d in {torch.device("cpu"), *devices}}
    try:
        yield
    finally:
        for device, state in before.items():
            set_random_state(device, state)


def random_state(device: torch.device) -> Tensor:
    """Return the state of a device's global generator."""
    if device.type == "cpu":
        return torch.get_rng_state()
    module = torch.get_device_module(device)
    if device.index is None:
        state: Tensor = module.get_rng_state()
    else:
        state = module.get_rng_state(device)
    return state


def set_random_state(device: torch.device, state: Tensor) -> None:
    """Set the state of a device's global generator."""
    if device.type == "cpu":
        torch.set_rng_state(state)
    elif device.index is None:
        torch.get_device_module(device).set_rng_state(state)
    else:
        torch.get_device_module(device).set_rng_state(state, device)


@contextlib.contextmanager
def without_autocast(devices: Iterable[torch.device]) -> Iterator[None]:
    """Switch autocast off in the body, because the record includes the casts."""
    with contextlib.ExitStack() as stack:
        for kind in {device.type for device in devices}:
            available = torch.amp.is_autocast_available(kind)
            if available and torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextlib.contextmanager
def without_fused_layers() -> Iterator[None]:
    """Compute attention and transformer layers step by step in the body.

    In evaluation mode these layers run fused kernels without a derivative if none of
    their tensors seems to require grad, which is so inside ``torch.func.vmap``.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


class TwiceDifferentiable:
    """Use kernels that have a second derivative in the body of a ``with``.

    Fused attention has no second derivative, on any device. Recurrent layers have none
    in cuDNN. Functions that ``torch.compile`` returned have none either, and run
    without compilation.

    Args:
        recurrent: whether there are recurrent layers.
    """

    def __init__(self, recurrent: bool) -> None:
        self._switches = [_ATTENTION, _CUDNN] if recurrent else [_ATTENTION]
        self._eager = RunAsWritten()

    def __enter__(self) -> None:
        for switch in self._switches:
            switch.enter()
        self._eager.__enter__()

    def __exit__(self, *error: object) -> None:
        self._eager.__exit__(*error)
        for switch in self._switches:
            switch.leave()


class _Switch:
    """A setting of the whole process, which several threads may need at once.

    The first that enters sets it, and the last that leaves puts back what was before.

    Args:
        read: returns the setting.
        write: sets it.
        needed: the value in between.
    """

    def __init__(
        self, read: Callable[[], Any], write: Callable[[Any], None], needed: Any
    ) -> None:
        self._read, self._write, self._needed = read, write, needed
        self._lock = threading.Lock()
        self._inside = 0
        self._before: Any = None

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = self._read()
                self._write(self._needed)
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._write(self._before)


def _attention_kernels() -> tuple[bool, ...]:
    c = torch._C
    return (
        c._get_flash_sdp_enabled(),
        c._get_mem_efficient_sdp_enabled(),
        c._get_cudnn_sdp_enabled(),
        c._get_math_sdp_enabled(),
    )


def _set_attention_kernels(flags: tuple[bool, ...]) -> None:
    c = torch._C
    flash, efficient, cudnn, math = flags
    c._set_sdp_use_flash(flash)
    c._set_sdp_use_mem_efficient(efficient)
    c._set_sdp_use_cudnn(cudnn)
    c._set_sdp_use_math(math)


def _set_cudnn(on: bool) -> None:
    torch.backends.cudnn.enabled = on


_ATTENTION = _Switch(
    _attention_kernels, _set_attention_kernels, (False, False, False, True)
)
_CUDNN = _Switch(lambda: torch.backends.cudnn.enabled, _set_cudnn, False)


class RunAsWritten:
    """Run functions from ``torch.compile`` without compilation, in a ``with`` block.

    Compiled code can be neither differentiated twice nor recorded.
    """

    def __init__(self) -> None:
        self._stance: Any = None

    def __enter__(self) -> None:
        frames = sys.modules.get("torch._dynamo.eval_frame")
        known = frames is not None and hasattr(torch.compiler, "set_stance")  # 2.6
        if frames is not None and known and frames.cached_backends:
            self._stance = torch.compiler.set_stance("force_eager")
            self._stance.__enter__()

    def __exit__(self, *error: object) -> None:
        if self._stance is not None:
            self._stance.__exit__(*error)
