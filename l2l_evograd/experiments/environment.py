"""What results may depend on besides settings, for ``l2l-evograd --version``."""

import importlib.metadata
import os
import platform
from collections.abc import Iterator

import torch

import l2l_evograd
from l2l_evograd.experiments.threads import cores

_LIBRARIES = (
    *("torch", "numpy", "learn2learn", "higher", "pytorch-lightning", "torchvision"),
    *("cyclopts", "dehb", "ConfigSpace", "optuna"),
)


def version_of(library: str) -> str | None:
    """Return the version of an installed library, without importing it, or None."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def environment() -> str:
    """Return the version of this package and its environment, one line for each part.

    The number of threads is that of a command that is one process. torch is asked for
    it, and for CUDA devices, because it is imported by then anyway.
    """
    lines = {"l2l-evograd": l2l_evograd.__version__, **dict(_parts())}
    return "\n".join(f"{name} {value}" for name, value in lines.items())


def _parts() -> Iterator[tuple[str, str]]:
    yield "python", platform.python_version()
    yield "platform", platform.platform()
    for name in _LIBRARIES:
        yield name, version_of(name) or "not installed"
    yield "cores", str(cores())
    chosen = os.environ.get("OMP_NUM_THREADS")
    how = "OMP_NUM_THREADS is not set"
    if chosen is not None:
        how = f"OMP_NUM_THREADS is {chosen}"
    yield "threads", f"{torch.get_num_threads()} ({how})"
    yield "cuda", _devices()


def _devices() -> str:
    if not torch.cuda.is_available():
        return "none"
    count = torch.cuda.device_count()
    return ", ".join(torch.cuda.get_device_name(number) for number in range(count))
