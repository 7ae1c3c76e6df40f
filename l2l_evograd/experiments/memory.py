"""The memory of the machine, and settings that need far more than it has."""

import os
from pathlib import Path

from l2l_evograd.checks import InputError

# Where Linux says how much memory a container may use.
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)

GIB = 2**30


def machine_memory() -> int | None:
    """Return the bytes of main memory that a process can have; None: unknown."""
    try:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):  # other systems than Unix
        return None
    for path in _LIMITS:
        try:
            found.append(int(path.read_text()))
        except (OSError, ValueError):  # no such limit, or "max"
            continue
    return min(found)


def check_memory(needed: float, what: str, there: int | None = None) -> None:
    """Refuse what needs more memory than the machine has.

    Args:
        needed: bytes that are needed at least.
        what: what needs them, and which settings make it smaller.
        there: bytes that are there; None: those of the machine.

    Raises:
        InputError: says how much is needed and how much there is.
    """
    there = machine_memory() if there is None else there
    if there is not None and needed > there:
        raise InputError(
            f"not enough memory for {what}: expected at most {there / GIB:,.1f} GiB, "
            f"the memory of this machine, got at least {needed / GIB:,.1f} GiB"
        )
