"""Replace torch's out-of-memory errors by advice."""

import contextlib
from collections.abc import Iterator

import torch

from l2l_evograd.checks import InputError

# Parts of the error messages of torch's allocator of main memory.
_ON_CPU = ("can't allocate memory", "not enough memory")


@contextlib.contextmanager
def out_of_memory_advice(advice: str) -> Iterator[None]:
    """Replace an out-of-memory error of the body by one that tells what to do.

    Args:
        advice: text that names what needs the memory and the settings that reduce it.

    Raises:
        InputError: in place of torch's error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        kinds = (MemoryError, torch.cuda.OutOfMemoryError)
        if not (isinstance(error, kinds) or any(t in str(error) for t in _ON_CPU)):
            raise
        amount = str(error).partition("\n")[0]
        raise InputError(
            f"not enough memory for {advice} (torch reports: {amount[:160]})"
        ) from error
