"""Algorithms that give the same bits in every run, for the length of a run."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from l2l_evograd.checks import InputError

# cuBLAS reads this variable when it is used first. Its usual workspace may give other
# bits in every run.
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_FIXED = (":4096:8", ":16:8")


@contextlib.contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """Let torch use only deterministic algorithms in the body.

    What torch did before comes back after the body, also after an error.

    Args:
        on: whether to do so; False: nothing is changed.

    Raises:
        InputError: if the environment lets cuBLAS use another workspace.

    Cost: nothing on the CPU; some operations on CUDA are slower, and a few that have no
        deterministic algorithm raise a RuntimeError that names them.

    Source: PyTorch's notes on reproducibility, ``torch.use_deterministic_algorithms``.
    """
    if not on:
        yield
        return
    check_workspace()
    mode = torch.get_deterministic_debug_mode()
    filling: Any = torch.utils.deterministic
    fills = filling.fill_uninitialized_memory
    benchmark = torch.backends.cudnn.benchmark
    workspace = os.environ.get(_WORKSPACE)
    try:
        os.environ[_WORKSPACE] = workspace or _FIXED[0]
        # Does what use_deterministic_algorithms does, without loading the compiler.
        torch.set_deterministic_debug_mode("error")
        # Filling what is overwritten anyway would only take time.
        filling.fill_uninitialized_memory = False
        torch.backends.cudnn.benchmark = False
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        filling.fill_uninitialized_memory = fills
        torch.backends.cudnn.benchmark = benchmark
        if workspace is None:
            del os.environ[_WORKSPACE]


def check_workspace() -> None:
    """Refuse an environment that lets cuBLAS use a workspace that is not fixed.

    Raises:
        InputError: says what to change.
    """
    found = os.environ.get(_WORKSPACE)
    if found is not None and found not in _FIXED:
        raise InputError(
            f"expected the environment variable {_WORKSPACE} to be "
            f"{' or '.join(_FIXED)} with --deterministic, got {found!r}; unset it, and "
            f"the command sets it itself"
        )
