"""Digests (SHA-256) of what runs read and write, to notice that it has changed."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def digest_of(content: Mapping[str, Any]) -> str:
    """Return the digest of an object that JSON can store.

    The order of its entries does not count.

    Raises:
        ValueError: for NaN and infinite numbers.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def digest_of_state(state: Any) -> str:
    """Return the digest of tensors, numbers and text in lists, tuples and dicts.

    The device of a tensor does not count, nor the class of a mapping or sequence.

    Raises:
        TypeError: for anything else.

    Cost: reads every tensor once; about 1 s for each GB.
    """
    digest = hashlib.sha256()
    for part in _parts(state):
        digest.update(part)
    return f"sha256:{digest.hexdigest()}"


def fingerprint(*parts: Any) -> str:
    """Return a short digest of data: tensors, numbers and text, as they are read."""
    return digest_of_state(parts).partition(":")[2][:16]


def _parts(value: Any) -> Iterable[bytes | memoryview]:
    """Yield bytes from which the value could be made again."""
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous()
        yield f"tensor {plain.dtype} {tuple(plain.shape)} ".encode()
        yield memoryview(plain.reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)} ".encode()
        for key, content in value.items():
            yield from _parts(key)
            yield from _parts(content)
    elif isinstance(value, list | tuple):
        yield f"sequence {len(value)} ".encode()
        for content in value:
            yield from _parts(content)
    elif isinstance(value, str | bytes):
        text = value.encode() if isinstance(value, str) else value
        yield f"{type(value).__name__} {len(text)} ".encode()
        yield text
    elif value is None or isinstance(value, bool | int | float | complex):
        yield f"{type(value).__name__} {value!r} ".encode()
    elif isinstance(value, torch.dtype | torch.Size | torch.device):
        yield f"{value} ".encode()
    else:
        raise TypeError(f"expected tensors, numbers and text, got {type(value)}")
