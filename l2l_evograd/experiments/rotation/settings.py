"""Settings of the rotation experiment."""

from dataclasses import dataclass
from typing import ClassVar

from l2l_evograd.experiments.settings import (
    MOST_RATE,
    MOST_SEEDS,
    Names,
    RunSettings,
    setting,
)

METHODS = ("none", "evograd", "guided", "exact")


@dataclass(frozen=True, kw_only=True)
class RotationSettings(RunSettings):
    """Settings of a rotation run. The help text of each setting explains it.

    Raises:
        InputError: for values out of range; the message names the valid values.
    """

    command: ClassVar[str] = "rotation"

    methods: Names = setting(
        METHODS, "Methods to compare, separated by commas.", choices=METHODS
    )
    seeds: int = setting(
        2,
        "Number of seeds; it may change with --resume.",
        least=1,
        may_change=True,
        most=MOST_SEEDS,
    )
    data: str | None = setting(
        None,
        "Folder with MNIST's files; the test files are enough.",
        if_none="built-in digits",
        path=True,
    )
    iterations: int = setting(
        200, "Number of iterations of every method.", least=1, fidelity=60, most=10**8
    )
    batch_size: int = setting(
        128, "Number of images in a training or validation batch.", least=1, most=10_000
    )
    lr: float = setting(
        1e-3,
        "Learning rate of Adam for the network, and of the virtual step.",
        positive=True,
        search=(3e-4, 1e-2, "log"),
        most=MOST_RATE,
    )
    meta_lr: float = setting(
        1e-2,
        "Learning rate of Adam for the angle, in radians.",
        positive=True,
        search=(1e-3, 0.1, "log"),
        used_by=("evograd", "guided", "exact"),
        most=MOST_RATE,
    )
    candidates: int = setting(
        2,
        "Number of candidates K of Algorithm 1 (evograd).",
        least=2,
        search=(2, 4),
        used_by=("evograd",),
        most=1000,
    )
    sigma: float = setting(
        1e-3,
        "Standard deviation σ of the candidates' weights (evograd).",
        positive=True,
        search=(1e-4, 0.1, "log"),
        used_by=("evograd",),
        least=1e-6,
        most=100,
    )
    temperature: float = setting(
        0.05,
        "Temperature τ of the candidates' losses (evograd).",
        positive=True,
        search=(5e-3, 0.5, "log"),
        used_by=("evograd",),
        least=1e-6,
    )
    h: float = setting(
        0.01,
        "Length h of the step of the finite difference in weight space (guided).",
        positive=True,
        search=(1e-3, 0.1, "log"),
        used_by=("guided",),
        least=1e-6,
        most=100,
    )
