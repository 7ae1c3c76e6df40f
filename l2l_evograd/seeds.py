"""Seeds that are derived from their purpose, and the state of random generators.

No generator is carried from one iteration to the next. Each iteration derives its seeds
from (seed, purpose, iteration). A run that was killed therefore resumes bit for bit,
and all methods of an experiment see the same data.
"""

import contextlib
import hashlib
import random
from collections.abc import Iterator
from typing import Any

import torch

CPU = torch.device("cpu")


def derive_seed(*parts: int | str) -> int:
    """Return a seed of 63 bits that depends on all of ``parts`` and their order.

    The seed is made from the first eight bytes of SHA-256 over the parts. Seeds of
    neighbouring iterations are unrelated, and every process gets the same seed.
    """
    text = "/".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(*parts: int | str) -> torch.Generator:
    """Return a generator on the CPU, seeded by :func:`derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def draw_seed(generator: torch.Generator) -> int:
    """Return a seed of 63 bits drawn from ``generator``, which advances by one draw."""
    high = (1 << 63) - 1
    return int(
        torch.randint(high, (), generator=generator, device=generator.device).item()
    )


def default_generator() -> torch.Generator:
    """Return a generator that depends on ``torch.manual_seed`` but draws nothing.

    Its seed is derived from torch's global random state, which does not change.
    """
    return generator_for(bytes(torch.get_rng_state().tolist()).hex())


@contextlib.contextmanager
def seeded(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Seed torch's global generators for the body, and restore their state afterwards.

    Args:
        seed: seed for the generator of the CPU and for the generator of ``device``.
        device: device on which the body computes.
    """
    elsewhere = [] if device.type == "cpu" else [_index(device)]
    kind = "cuda" if device.type == "cpu" else device.type
    with torch.random.fork_rng(devices=elsewhere, device_type=kind):
        torch.default_generator.manual_seed(seed)
        if elsewhere:
            torch.get_device_module(device).manual_seed(seed)
        yield


@contextlib.contextmanager
def python_seeded(seed: int) -> Iterator[None]:
    """Seed Python's global generator for the body, and restore its state afterwards."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of Python's and torch's global generators."""
    state = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if device.type != "cpu":
        state["device"] = torch.get_device_module(device).get_rng_state()
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore the state that :func:`random_state` returned."""
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    if device.type != "cpu" and "device" in state:
        torch.get_device_module(device).set_rng_state(state["device"])


def _index(device: torch.device) -> int:
    if device.index is not None:
        return device.index
    return int(torch.get_device_module(device).current_device())
