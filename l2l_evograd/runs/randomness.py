"""Stateless randomness: every seed follows from what it is for.

A run that was killed must go on bit for bit, and all methods must see the same
episodes. So no generator's state is carried from one iteration to the next. Each
iteration derives its seeds from (seed, purpose, iteration) and runs with the global
generator seeded by one of them; whatever state the process had before is put back.
"""

import contextlib
import hashlib
import random
from collections.abc import Iterator
from typing import Any

import torch


def derive_seed(*parts: int | str) -> int:
    """Return a seed of 63 bits that depends on all of ``parts`` and their order.

    The first eight bytes of SHA-256 over the parts, so that neighbouring iterations
    share nothing and the answer is the same in every process.
    """
    text = "/".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Run the body with torch's global generators seeded, and put their state back.

    Args:
        seed: of the CPU's generator and of the one of ``device``.
        device: where the body computes.
    """
    elsewhere = [] if device.type == "cpu" else [_index(device)]
    kind = "cuda" if device.type == "cpu" else device.type
    with torch.random.fork_rng(devices=elsewhere, device_type=kind):
        torch.default_generator.manual_seed(seed)
        if elsewhere:
            torch.get_device_module(device).manual_seed(seed)
        yield


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of Python's and torch's global generators."""
    state = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if device.type != "cpu":
        state["device"] = torch.get_device_module(device).get_rng_state()
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Take back what :func:`random_state` returned."""
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    if device.type != "cpu" and "device" in state:
        torch.get_device_module(device).set_rng_state(state["device"])


def _index(device: torch.device) -> int:
    if device.index is not None:
        return device.index
    return int(torch.get_device_module(device).current_device())
