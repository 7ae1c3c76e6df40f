"""The parts of learn2learn that the experiments use, imported without gym's notice.

learn2learn imports gym. Each import of gym prints a notice that gym is unmaintained.
Importing from this module keeps that line out of the output of commands, benchmarks and
worker processes.
"""

import contextlib
import io
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without_gym_notice() -> Iterator[None]:
    """Capture the standard error of the body, and print it without gym's notice."""
    held = io.StringIO()
    try:
        with contextlib.redirect_stderr(held):
            yield
    finally:
        for line in held.getvalue().splitlines():
            if "gym" not in line.lower():
                print(line, file=sys.stderr)


with without_gym_notice():
    import learn2learn as l2l
    from learn2learn.data import MetaDataset, Taskset
    from learn2learn.data.transforms import (
        ConsecutiveLabels,
        KShots,
        LoadData,
        NWays,
        RemapLabels,
    )
    from learn2learn.vision import benchmarks
    from learn2learn.vision.benchmarks import BenchmarkTasksets
    from learn2learn.vision.models.cnn4 import ConvBase, ConvBlock

__all__ = [
    "BenchmarkTasksets",
    "ConsecutiveLabels",
    "ConvBase",
    "ConvBlock",
    "KShots",
    "LoadData",
    "MetaDataset",
    "NWays",
    "RemapLabels",
    "Taskset",
    "benchmarks",
    "l2l",
]
