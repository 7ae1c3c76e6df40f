"""The settings of a rotation run, checked before anything else happens."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from l2l_evograd.estimators import check_choice, check_positive

METHODS = ("none", "evograd", "guided", "exact")

_LEAST = {
    "iterations": 1,
    "batch_size": 1,
    "candidates": 2,
    "seed": 0,
    "seeds": 1,
}


@dataclass(frozen=True)
class RotationSettings:
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
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"expected {name} to be a whole number, got {value!r}")
            if value < least:
                raise ValueError(f"expected {name} to be at least {least}, got {value}")
        for name in ("lr", "meta_lr"):
            check_positive(getattr(self, name), name)
        if isinstance(self.methods, str):
            raise TypeError(
                f"expected methods to be a sequence of names, got the text "
                f"{self.methods!r}; write ({self.methods!r},)"
            )
        object.__setattr__(self, "methods", tuple(self.methods))
        for method in self.methods:
            check_choice(method, METHODS, "method")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(
                f"expected at least one method of {', '.join(METHODS)}, and each once, "
                f"got {', '.join(self.methods) or 'none'}"
            )

    @property
    def all_seeds(self) -> range:
        """Every seed of the run."""
        return range(self.seed, self.seed + self.seeds)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON knows them."""
        return {**dataclasses.asdict(self), "methods": list(self.methods)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RotationSettings":
        """Return the settings that :meth:`to_dict` wrote.

        Raises:
            ValueError: for names that are missing or unknown.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        wrong = sorted(known.symmetric_difference(values))
        if wrong:
            raise ValueError(
                f"expected the settings of a rotation run of this version, got others "
                f"in {', '.join(wrong)}; start anew in another folder"
            )
        return cls(**values)
