"""Memory that does not suffice, said in a sentence."""

import contextlib
from collections.abc import Iterator

import torch

# How torch's allocator of main memory puts it.
_ON_CPU = ("can't allocate memory", "not enough memory")


@contextlib.contextmanager
def enough_memory(advice: str) -> Iterator[None]:
    """Let a lack of memory in the body say what to do.

    Args:
        advice: what needs the memory, and the settings that lower it.

    Raises:
        ValueError: in place of torch's errors.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _exhausted(error):
            raise
        amount = str(error).partition("\n")[0]
        raise ValueError(
            f"not enough memory for {advice} (torch says: {amount[:160]})"
        ) from error


def _exhausted(error: BaseException) -> bool:
    kinds = (MemoryError, torch.cuda.OutOfMemoryError)
    return isinstance(error, kinds) or any(text in str(error) for text in _ON_CPU)
