"""The settings of a noisy-label experiment, checked before anything else happens."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from l2l_evograd.noisy_labels.corruption import check_noise
from l2l_evograd.noisy_labels.methods import METHODS
from l2l_evograd.noisy_labels.module import PRECISIONS
from l2l_evograd.noisy_labels.networks import NETWORKS
from l2l_evograd.runs.processes import check_devices
from l2l_evograd.runs.settings import (
    RunSettings,
    check_device,
    check_methods,
    check_one_of,
    check_rate,
    check_whole,
    found_device,
)

# What is taken where nothing is asked for: the paper's, and for the built-in glyphs.
PAPER = {"network": "resnet32", "epochs": 60, "meta_images": 1000}
BUILT_IN = {"network": "small", "epochs": 15, "meta_images": 100}

_LEAST = {"width": 1, "batch_size": 2}
_LEAST_IF_GIVEN = {
    "epochs": 1,
    "iterations": 1,
    "meta_images": 1,
    "train_images": 1,
    "test_images": 1,
    "image_size": 16,
}


@dataclass(frozen=True)
class NoisyLabelSettings(RunSettings):
    """All that the figures of a run depend on.

    Attributes:
        data: folder of images, see :func:`~.data.read_source`; None: the built-in
            glyphs.
        methods: what to compare, names of :data:`METHODS`, in this order.
        noise: ``"uniform"``, ``"flip"`` or ``"flip2"``.
        noise_rate: between 0 and 1.
        imbalance: size of the first class by that of the last; 1: none.
        meta_images: size of the clean, balanced meta set; None: 1000, built-in 100.
        train_images: how many images to train on; None: all but the meta set.
        test_images: how many to test on; None: all.
        image_size: side in pixels; None: 32, built-in 20.
        network: a name in :data:`NETWORKS`; None: ResNet-32, built-in the small one.
        width: factor of the network's channels.
        epochs: passes over the training images; None: 60, built-in 15, unless there
            are ``iterations``.
        iterations: of the whole training, in place of epochs.
        batch_size: of the training and the meta batch.
        lr: of SGD over the weights, and η of the virtual step.
        meta_lr: of SGD over the weight net.
        precision: ``"32"`` or ``"bf16"``.
        seed: the first seed; the split and the noise follow it as well.
        seeds: how many seeds, counted up from ``seed``.
        device: "cpu", "cuda", "cuda:1" or "auto", an accelerator if there is one.
        devices: how many processes share out each batch.

    Raises:
        ValueError, TypeError: for values out of range, naming the valid ones.
    """

    command: ClassVar[str] = "noisy-labels"

    methods: tuple[str, ...] = tuple(METHODS)
    seed: int = 0
    seeds: int = 1
    device: str = "auto"
    devices: int = 1
    data: str | None = None
    noise: str = "flip2"
    noise_rate: float = 0.4
    imbalance: float = 1.0
    meta_images: int | None = None
    train_images: int | None = None
    test_images: int | None = None
    image_size: int | None = None
    network: str | None = None
    width: int = 1
    epochs: int | None = None
    iterations: int | None = None
    batch_size: int = 100
    lr: float = 0.1
    meta_lr: float = 1e-3
    precision: str = "32"

    def __post_init__(self) -> None:
        """Refuse what no run can be made from."""
        super().__post_init__()
        for name, least in _LEAST.items():
            check_whole(name, getattr(self, name), least)
        for name, least in _LEAST_IF_GIVEN.items():
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), least)
        if self.epochs is not None and self.iterations is not None:
            raise ValueError(
                f"expected epochs or iterations, got both: {self.epochs} and "
                f"{self.iterations}"
            )
        for name in ("lr", "meta_lr", "imbalance"):
            check_rate(name, getattr(self, name))
        if self.imbalance < 1:
            raise ValueError(
                f"expected an imbalance of at least 1 (1: none), got {self.imbalance}"
            )
        check_noise(self.noise, self.noise_rate)
        if self.network is not None:
            check_one_of("network", self.network, NETWORKS)
        check_one_of("precision", self.precision, PRECISIONS)
        check_methods(self.methods, METHODS)
        check_device(self.device)
        check_devices(self.devices, self.device, self.batch_size)

    def resolved(self) -> "NoisyLabelSettings":
        """Return the settings with nothing left open but how much data to keep."""
        defaults: dict[str, Any] = dict(BUILT_IN if self.data is None else PAPER)
        if self.iterations is not None:
            del defaults["epochs"]
        chosen = {
            name: value
            for name, value in defaults.items()
            if getattr(self, name) is None
        }
        device = found_device(self.device)
        return dataclasses.replace(self, device=device, **chosen)
