"""MNIST's files with a few random digits in them."""

import gzip
import struct
from pathlib import Path

import numpy as np


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write bytes as IDX; packed if the name ends in .gz."""
    magic = 2048 + values.ndim
    content = struct.pack(f">I{values.ndim}I", magic, *values.shape)
    content += values.astype(np.uint8).tobytes()
    packed = gzip.compress(content) if path.suffix == ".gz" else content
    path.write_bytes(packed)


def write_digits(
    folder: Path, name: str, count: int, side: int = 28, suffix: str = ""
) -> None:
    """Write ``count`` images of noise and their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(count)
    images = random.integers(0, 256, (count, side, side))
    write_idx(folder / f"{name}-images-idx3-ubyte{suffix}", images)
    write_idx(folder / f"{name}-labels-idx1-ubyte{suffix}", np.arange(count) % 10)
