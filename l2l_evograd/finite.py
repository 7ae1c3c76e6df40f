"""Looks at many tensors at once: are all of their numbers finite?

On a CPU one sum over all tensors tells. On a CUDA device the largest absolute value is
sent, and looked at in a later call, so that no step waits for the device.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from l2l_evograd.checks import ARRIVING, InputError, NotFiniteError, check_choice

#: What happens where a number is not finite.
POLICIES = ("raise", "skip")

#: What to do about it.
ADVICE = "lower the learning rate or check the data"

# Tensors of fewer entries are looked at together, as one.
_SMALL = 16384

_LARGEST_SINGLE = torch.finfo(torch.float32).max

Named = Mapping[str, Sequence[Tensor | None]]


def check_policy(nan_policy: object) -> None:
    """Raise an error if ``nan_policy`` is not one of :data:`POLICIES`.

    Raises:
        InputError: if it is not.
    """
    check_choice(nan_policy, POLICIES, "nan_policy")


def check_tensors(named: Named, advice: str = ADVICE, wait: bool = False) -> None:
    """Raise an error if an entry of a tensor is NaN or infinite.

    Args:
        named: tensors by what they are, such as ``{"the hypergradient": [...]}``; None
            stands for no tensor.
        advice: what to do about it, for the message.
        wait: whether to wait for the values of a CUDA device.

    Raises:
        NotFiniteError: if there is such an entry, or if a value that was sent earlier
            is not finite.

    Cost: one sweep over the tensors. On a CPU a second one if their sum is not finite.
    """
    apart: dict[torch.device, list[Tensor]] = {}
    for tensors in named.values():
        for tensor in tensors:
            if tensor is None or not tensor.numel():
                continue
            if tensor.layout != torch.strided or tensor.is_complex():
                tensor = _entries(tensor)
            if tensor.is_floating_point():
                apart.setdefault(tensor.device, []).append(tensor)
    with torch.no_grad():
        for device, tensors in apart.items():
            if device.type == "cuda" and not wait:
                ARRIVING.check()
                if not torch.cuda.is_current_stream_capturing():
                    tops = torch._foreach_norm(tensors, math.inf)
                    top = torch.stack([t.float() for t in tops]).amax()
                    ARRIVING.send(top, " or ".join(named))
            elif not math.isfinite(_sum(tensors)):
                _say_which(named, advice)


def check_range(number: float, tensors: Sequence[Tensor], name: str) -> None:
    """Raise an error if the arithmetic of some tensors does not hold a number.

    Half precision computes with numbers of single precision.

    Raises:
        InputError: if one does not.
    """
    if abs(number) <= _LARGEST_SINGLE:
        return
    for tensor in tensors:
        if has_fractions(tensor) and tensor.dtype.to_real() != torch.float64:
            raise InputError(
                f"expected {name} to be in the range of {tensor.dtype}, up to "
                f"{_LARGEST_SINGLE:.2g}, got {number:.3g}"
            )


def has_fractions(tensor: Tensor) -> bool:
    """Return whether a tensor holds floating-point or complex numbers."""
    return tensor.is_floating_point() or tensor.is_complex()


def _entries(tensor: Tensor) -> Tensor:
    """Return the entries that a tensor stores, as real numbers without a graph."""
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.coalesce().values() if tensor.is_sparse else tensor.values()
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _sum(tensors: Sequence[Tensor]) -> float:
    """Return a number that is finite only if all entries are; it may overflow."""
    sums: list[Tensor] = []
    small: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.numel() < _SMALL:
            small.setdefault(tensor.dtype, []).append(tensor)
        else:
            sums.append(_sum_of(tensor))
    for parts in small.values():
        sums.append(_sum_of(torch.cat([part.reshape(-1) for part in parts])))
    if len(sums) == 1:
        return sums[0].item()
    kind = torch.float32 if sums[0].device.type == "mps" else torch.float64
    return torch.stack([part.to(kind) for part in sums]).sum().item()


def _sum_of(tensor: Tensor) -> Tensor:
    if tensor.dtype.itemsize < 4:
        return tensor.sum(dtype=torch.float32)
    return tensor.sum()


def _say_which(named: Named, advice: str) -> None:
    """Raise the error for the first tensor that has such an entry, if there is one."""
    for name, tensors in named.items():
        for place, tensor in enumerate(tensors):
            if tensor is None or not has_fractions(tensor):
                continue
            entries = _entries(tensor)
            bad = ~torch.isfinite(entries)
            count = int(bad.sum())
            if count:
                first = entries[bad].flatten()[0].item()
                where = f" of tensor {place}" if len(tensors) > 1 else ""
                raise NotFiniteError(
                    f"expected {name} to be finite, got {first} in {count} of "
                    f"{entries.numel()} entries{where}, of shape "
                    f"{tuple(tensor.shape)}; {advice}"
                )


class Watch:
    """Looks at the numbers of inner steps and of their adjoints.

    Args:
        nan_policy: ``"raise"``: what is not finite is an error; ``"skip"``: it is
            counted and left out.
        wait: whether to wait for the values of a CUDA device; None: to skip.
        results: whether to look at what adjoints return. If not, the caller does.

    Attributes:
        nan_policy: as given.
        wait: as given.
        results: as given.
        skipped: how often something was left out.

    Raises:
        InputError: for another policy.
    """

    def __init__(
        self, nan_policy: str = "raise", wait: bool | None = None, results: bool = True
    ) -> None:
        check_policy(nan_policy)
        self.nan_policy = nan_policy
        self.wait = nan_policy == "skip" if wait is None else wait
        self.results = results
        self.skipped = 0

    def look(self, named: Named, advice: str = ADVICE) -> None:
        """Look at tensors; see :func:`check_tensors`."""
        check_tensors(named, advice, self.wait)

    def passes(self, named: Named, advice: str = ADVICE) -> bool:
        """Look at tensors; say whether they are finite, unless that is an error."""
        try:
            self.look(named, advice)
        except NotFiniteError:
            self.skip()
            return False
        return True

    def skip(self) -> None:
        """Count what is left out; called where an error is handled.

        Raises:
            NotFiniteError: the error again, unless the policy is to skip.
        """
        if self.nan_policy != "skip":
            raise  # noqa: PLE0704  # the error that is being handled
        self.skipped += 1


#: Names for messages.
COTANGENT = "the gradient of the outer loss with respect to the updated weights"
GRADIENT = "the gradient of the inner loss"
HYPERGRADIENT = "the hypergradient"
OUTER_ADVICE = "the outer loss has no finite derivative there; check it and its data"
