"""Settings of the noisy-labels experiment."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.devices import found_device
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
    NamesOrNone,
    TrainingSettings,
    setting,
)

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
    seed: int = setting(0, "First seed; the split and the noise also depend on it.")
    seeds: int = setting(3, "Number of seeds.", least=1, identifies=False)
    devices: int = setting(
        1, "Number of processes, each with a device, that share each batch.", least=1
    )
    data: str | None = setting(
        None,
        "Folder with torchvision's CIFAR-10 or CIFAR-100, or with train/CLASS and "
        "test/CLASS.",
        if_none="built-in glyphs",
    )
    noise: str = setting("flip2", "Type of label noise.", choices=KINDS)
    noise_rate: float = setting(
        0.4, "Probability that the noise acts on a label, 0 to 1."
    )
    imbalance: float = setting(
        1.0,
        "Size of the largest class divided by the size of the smallest; 1: balanced.",
        positive=True,
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
        1, "Factor for the number of channels of the network.", least=1
    )
    epochs: int | None = setting(
        None,
        "Number of passes over the training images.",
        least=1,
        if_none="60; 10 for built-in glyphs",
    )
    iterations: int | None = setting(
        None,
        "Number of iterations of every method, in place of --epochs.",
        least=1,
        fidelity=135,
    )
    batch_size: int = setting(
        100, "Number of images in a training or meta batch.", least=2
    )
    lr: float | None = setting(
        None,
        "Learning rate of SGD for the network, and of the virtual step.",
        positive=True,
        if_none="0.1; 0.03 with weights of samples",
        search=(3e-3, 0.3, "log"),
    )
    meta_lr: float = setting(
        1e-3,
        "Learning rate of SGD for the weight net.",
        positive=True,
        search=(1e-4, 0.1, "log"),
        used_by=tuple(n for n, how in METHODS.items() if how.learned),
    )
    warm_up: int = setting(
        0,
        "Number of iterations at the beginning without weights.",
        least=0,
        search=(0, 10),
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
