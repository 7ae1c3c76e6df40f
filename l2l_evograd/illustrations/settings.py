"""The settings of a rotation run, checked before anything else happens."""

from dataclasses import dataclass
from typing import ClassVar

from l2l_evograd.checks import check_choice
from l2l_evograd.runs.settings import RunSettings, check_rate, check_whole

METHODS = ("none", "evograd", "guided", "exact")

_LEAST = {"iterations": 1, "batch_size": 1, "candidates": 2}


@dataclass(frozen=True)
class RotationSettings(RunSettings):
    """All that the figures of a run depend on.

    Attributes:
        data: folder with MNIST's files; None: the built-in digits.
        methods: what to compare, names of :data:`METHODS`, in this order.
        iterations: of every method.
        batch_size: of training and of validation images.
        lr: of Adam over the weights, and η of the virtual step.
        meta_lr: of Adam over the angle, in radians.
        candidates: K of ``"evograd"``.
        seed: the first seed.
        seeds: how many seeds, counted up from ``seed``.

    Raises:
        ValueError, TypeError: for values out of range, naming the valid ones.
    """

    command: ClassVar[str] = "rotation"

    data: str | None = None
    methods: tuple[str, ...] = METHODS
    iterations: int = 200
    batch_size: int = 128
    lr: float = 1e-3
    meta_lr: float = 1e-2
    candidates: int = 2
    seed: int = 0
    seeds: int = 2

    def __post_init__(self) -> None:
        """Refuse what no run can be made from."""
        super().__post_init__()
        for name, least in _LEAST.items():
            check_whole(name, getattr(self, name), least)
        for name in ("lr", "meta_lr"):
            check_rate(name, getattr(self, name))
        for method in self.methods:
            check_choice(method, METHODS, "method")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(
                f"expected at least one method of {', '.join(METHODS)}, and each once, "
                f"got {', '.join(self.methods) or 'none'}"
            )
