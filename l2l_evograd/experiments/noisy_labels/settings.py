"""Settings of the noisy-labels experiment."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.devices import found_device
from l2l_evograd.experiments.memory import check_memory
from l2l_evograd.experiments.noisy_labels.corruption import KINDS, check_noise
from l2l_evograd.experiments.noisy_labels.methods import (
    METHODS,
    WEIGHTINGS,
    check_weighting,
    usual_methods,
)
from l2l_evograd.experiments.noisy_labels.networks import NETWORKS
from l2l_evograd.experiments.precision import UNSCALED
from l2l_evograd.experiments.settings import (
    MOST_RATE,
    MOST_SEED,
    MOST_SEEDS,
    NamesOrNone,
    TrainingSettings,
    setting,
)
from l2l_evograd.experiments.values import LARGEST_SIDE, check_glyphs

# The meaning of None: the paper's settings, and the settings for the built-in glyphs.
PAPER = {
    "weighting": "net",
    "network": "resnet32",
    "epochs": 60,
    "meta_images": 1000,
}
BUILT_IN = {
    "weighting": "samples",
    "network": "small",
    "epochs": 10,
    "meta_images": 100,
}

# Bytes that a training with width 1 needs at least: for each pixel of a batch, the
# feature maps that the backward pass reads; for the weights, gradients and momentum.
_MEMORY = {
    "small": (4 * 4 * 2, 4 * 4 * 29_000),
    "resnet32": (4 * 16 * 20, 4 * 4 * 464_000),
    "wrn28-10": (4 * 160 * 8, 4 * 4 * 36_500_000),
}


@dataclass(frozen=True, kw_only=True)
class NoisyLabelSettings(TrainingSettings):
    """Settings of a noisy-labels run. The help text of each setting explains it.

    Raises:
        InputError: for values out of range; the message names the valid values.
    """

    command: ClassVar[str] = "noisy-labels"
    exclusive: ClassVar[tuple[tuple[str, str], ...]] = (("epochs", "iterations"),)

    methods: NamesOrNone = setting(  # type: ignore[assignment]  # resolved() names them
        None,
        "Methods to compare, separated by commas.",
        choices=METHODS,
        if_none="samples: all but frozen; net: all but evograd-8 and evograd-32",
    )
    weighting: str | None = setting(
        None,
        "What is learned: samples, one weight for each sample of a batch, new in every "
        "iteration; net, a weight net that maps losses to weights.",
        choices=WEIGHTINGS,
        if_none="net; samples for built-in glyphs",
    )
    seed: int = setting(
        0, "First seed; the split and the noise also depend on it.", most=MOST_SEED
    )
    seeds: int = setting(
        3, "Number of seeds.", least=1, identifies=False, most=MOST_SEEDS
    )
    devices: int = setting(
        1,
        "Number of processes, each with a device, that share each batch.",
        least=1,
        most=1024,
    )
    data: str | None = setting(
        None,
        "Folder with torchvision's CIFAR-10 or CIFAR-100, or with train/CLASS and "
        "test/CLASS.",
        if_none="built-in glyphs",
        path=True,
    )
    noise: str = setting("flip2", "Type of label noise.", choices=KINDS)
    noise_rate: float = setting(
        0.4, "Probability that the noise acts on a label, 0 to 1."
    )
    imbalance: float = setting(
        1.0,
        "Size of the largest class divided by the size of the smallest; 1: balanced.",
        positive=True,
        most=10**6,
    )
    meta_images: int | None = setting(
        None,
        "Size of the clean, balanced meta set.",
        least=1,
        if_none="1000; 100 for built-in glyphs",
    )
    train_images: int | None = setting(
        None, "Number of training images.", least=1, if_none="all others"
    )
    test_images: int | None = setting(
        None, "Number of test images.", least=1, if_none="all", test_size=True
    )
    image_size: int | None = setting(
        None,
        "Side of the images in pixels.",
        least=16,
        if_none="32; 20 for built-in glyphs",
        most=LARGEST_SIDE,
    )
    no_augment: bool = setting(
        False,
        "Train on the images of --data as they are, neither shifted nor mirrored.",
    )
    network: str | None = setting(
        None,
        "Network.",
        choices=NETWORKS,
        if_none="resnet32; small for built-in glyphs",
    )
    width: int = setting(
        1, "Factor for the number of channels of the network.", least=1, most=32
    )
    epochs: int | None = setting(
        None,
        "Number of passes over the training images.",
        least=1,
        if_none="60; 10 for built-in glyphs",
        most=10**6,
    )
    iterations: int | None = setting(
        None,
        "Number of iterations of every method, in place of --epochs.",
        least=1,
        fidelity=135,
        most=10**8,
    )
    batch_size: int = setting(
        100, "Number of images in a training or meta batch.", least=2, most=10_000
    )
    lr: float | None = setting(
        None,
        "Learning rate of SGD for the network, and of the virtual step.",
        positive=True,
        if_none="0.1; 0.03 with weights of samples",
        search=(3e-3, 0.3, "log"),
        most=MOST_RATE,
    )
    meta_lr: float = setting(
        1e-3,
        "Learning rate of SGD for the weight net.",
        positive=True,
        search=(1e-4, 0.1, "log"),
        used_by=tuple(n for n, how in METHODS.items() if how.learned),
        most=MOST_RATE,
    )
    warm_up: int = setting(
        0,
        "Number of iterations at the beginning without weights.",
        least=0,
        search=(0, 10),
        most=10**8,
    )
    precision: str = setting(
        "32",
        "Precision of forward passes; bf16 is bfloat16 under autocast.",
        choices=UNSCALED,
    )

    def __post_init__(self) -> None:
        """Check each setting, and the settings that depend on each other."""
        super().__post_init__()
        if self.imbalance < 1:
            raise InputError(
                f"expected an imbalance of at least 1 (1: balanced), got "
                f"{self.imbalance}"
            )
        check_noise(self.noise, self.noise_rate)
        for name in self.methods or ():
            check_weighting(METHODS[name], self._weighting)
        if self.batch_size % self.devices:
            fitting = self.batch_size // self.devices * self.devices or self.devices
            raise InputError(
                f"expected a batch_size that {self.devices} devices can share equally, "
                f"got {self.batch_size}; use {fitting}"
            )

    def check_machine(self) -> None:
        """Refuse devices, memory or paths that this machine does not have."""
        super().check_machine()
        if self.data is None:
            check_glyphs(self.image_size)
        if self.device != "cpu" and torch.cuda.is_available():
            return  # torch tells how much the accelerator lacks
        settings = self.resolved()
        width, side = settings.width, self.image_size or 20
        per_pixel, weights = _MEMORY[settings.network or ""]
        images = self.batch_size * side**2 * per_pixel * width
        check_memory(
            images + weights * width**2,
            f"the network and a batch (network {settings.network}, width {width}, "
            f"batch_size {self.batch_size}, image_size {side})",
        )

    def resolved(self) -> "NoisyLabelSettings":
        """Return the settings with the defaults for what is None.

        ``train_images`` and ``test_images`` stay None, which means all images.
        """
        defaults = self._defaults
        if self.iterations is not None:
            del defaults["epochs"]
        defaults["methods"] = usual_methods(self._weighting)
        # Few samples of a batch have most of the weight, so that steps are noisier.
        defaults["lr"] = 0.03 if self._weighting == "samples" else 0.1
        chosen = {
            name: value
            for name, value in defaults.items()
            if getattr(self, name) is None
        }
        return dataclasses.replace(self, device=found_device(self.device), **chosen)

    def search_space(self) -> dict[str, Any]:
        """Return the settings that a search tries, if the user names none."""
        found = super().search_space()
        if self._weighting == "samples":  # there is no weight net
            found.pop("meta_lr", None)
        return found

    @property
    def _weighting(self) -> str:
        return self.weighting or str(self._defaults["weighting"])

    @property
    def _defaults(self) -> dict[str, Any]:
        """The meaning of None for the chosen data."""
        return dict(BUILT_IN if self.data is None else PAPER)
