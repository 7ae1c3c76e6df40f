"""Settings of the cross-domain experiment."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from l2l_evograd.checks import InputError, check_choice
from l2l_evograd.experiments.crossdomain.methods import METHODS
from l2l_evograd.experiments.crossdomain.networks.backbones import BACKBONES
from l2l_evograd.experiments.crossdomain.networks.heads import HEADS
from l2l_evograd.experiments.devices import check_nodes, found_device
from l2l_evograd.experiments.memory import check_memory
from l2l_evograd.experiments.precision import PRECISIONS
from l2l_evograd.experiments.settings import (
    MOST_RATE,
    MOST_SEEDS,
    Names,
    TrainingSettings,
    setting,
)
from l2l_evograd.experiments.values import LARGEST_SIDE, check_glyphs

CLASSIFIERS = ("linear", "cosine")

BUILT_IN_BASE = "print"

_WITH_NOISE = tuple(name for name, how in METHODS.items() if how.uses_lambda)


@dataclass(frozen=True, kw_only=True)
class CrossDomainSettings(TrainingSettings):
    """Settings of a cross-domain run. The help text of each setting explains it.

    The pre-trained encoder depends on the settings marked ``encoder``.

    Raises:
        InputError: for values out of range; the message names the valid values.
    """

    command: ClassVar[str] = "crossdomain"

    methods: Names = setting(
        tuple(METHODS),
        "Methods to compare, separated by commas.",
        choices=METHODS,
        identifies=False,
    )
    devices: int = setting(
        1,
        "Number of processes on each machine, each with its own device and episodes.",
        least=1,
        encoder=True,
        most=1024,
    )
    nodes: int = setting(
        1,
        "Number of machines, each with --devices processes that torchrun starts.",
        least=1,
        encoder=True,
        most=10_000,
    )
    seeds: int = setting(
        5, "Number of seeds.", least=1, identifies=False, most=MOST_SEEDS
    )
    unseen: str = setting(
        "inverse",
        "Domain that is left out of training and used for the test. Several domains, "
        "separated by commas, run one after the other.",
        identifies=False,
    )
    base: str | None = setting(
        None,
        "Domain for pre-training.",
        if_none="print, or the first seen domain of --data",
        encoder=True,
    )
    data: str | None = setting(
        None,
        "Folder ROOT with ROOT/NAME/{base,val,novel}.json.",
        if_none="built-in glyphs",
        encoder=True,
        path=True,
    )
    head: str = setting("protonet", "Head of the network.", choices=HEADS, encoder=True)
    backbone: str = setting(
        "cnn4", "Encoder of the network.", choices=BACKBONES, encoder=True
    )
    ways: int = setting(5, "Number of classes in an episode.", least=2, most=10_000)
    shots: int = setting(
        5, "Number of support images of each class.", least=1, most=10_000
    )
    queries: int = setting(
        5, "Number of query images of each class.", least=1, most=10_000
    )
    test_queries: int | None = setting(
        None,
        "Number of query images of each class in test episodes.",
        least=1,
        if_none="as many as --queries",
        most=10_000,
    )
    image_size: int | None = setting(
        None,
        "Side of the images in pixels.",
        least=16,
        if_none="24 for built-in glyphs; 84 (cnn4, conv4, conv6) or 224 (ResNets), or "
        "the images' own size if it is smaller",
        encoder=True,
        most=LARGEST_SIDE,
    )
    iterations: int = setting(
        50,
        "Number of meta-training iterations of every method.",
        least=1,
        fidelity=50,
        most=10**8,
    )
    domain_block: int = setting(
        1,
        "Number of consecutive episodes from the same two seen domains.",
        least=1,
        most=10**8,
    )
    augment: bool = setting(
        False, "Crop, jitter and mirror photographs in training.", encoder=True
    )
    auxiliary: bool = setting(
        False, "Also learn to classify the images of the base domain."
    )
    pretrain_epochs: int = setting(
        15,
        "Number of pre-training passes over the base classes; 0: no pre-training.",
        encoder=True,
        most=10**6,
    )
    pretrain_batch: int = setting(
        64,
        "Number of images in a pre-training batch.",
        least=2,
        encoder=True,
        most=10_000,
    )
    pretrain_classes: int | None = setting(
        None,
        "Number of outputs of the pre-training classifier.",
        least=2,
        if_none="the number of classes",
        encoder=True,
        most=100_000,
    )
    pretrain_classifier: str | None = setting(
        None,
        "Classifier for pre-training: baseline (linear) or baseline++ (cosine).",
        choices=CLASSIFIERS,
        if_none="cosine for matchingnet, else linear",
        encoder=True,
    )
    episodes: int = setting(
        300, "Number of test episodes.", least=2, test_size=True, most=10**6
    )
    lr: float = setting(
        1e-3,
        "Learning rate of Adam for the network, and of the virtual step.",
        positive=True,
        encoder=True,
        most=MOST_RATE,
    )
    meta_lr: float = setting(
        2e-2,
        "Learning rate of Adam for the transformation. The literature uses 0.001 with "
        "40,000 iterations.",
        positive=True,
        search=(2e-3, 0.2, "log"),
        used_by=tuple(name for name, how in METHODS.items() if how.learned),
        most=MOST_RATE,
    )
    start_scale: float = setting(
        0.3,
        "Strength of the noise on scales (γ) from which every method with noise "
        "starts, as a standard deviation.",
        search=(0.05, 1.0, "log"),
        used_by=_WITH_NOISE,
        most=100,
    )
    start_shift: float = setting(
        0.5,
        "Strength of the noise on shifts (β), likewise.",
        search=(0.05, 1.0, "log"),
        used_by=_WITH_NOISE,
        most=100,
    )
    precision: str = setting(
        "32",
        "Precision of forward passes; bf16 and fp16 run under autocast.",
        choices=PRECISIONS,
        encoder=True,
    )
    accumulate: int = setting(
        1,
        "Number of pairs of episodes in an iteration, in each process.",
        least=1,
        most=10_000,
    )
    save_every: int = setting(
        25,
        "Number of iterations between checkpoints.",
        least=1,
        identifies=False,
        most=10**8,
    )
    workers: int = setting(
        0,
        "Number of processes that read images in advance; 0: none.",
        identifies=False,
        may_change=True,
        most=256,
    )
    cache: float = setting(
        2.0,
        "Memory for decoded images in GiB, for all workers together.",
        positive=True,
        identifies=False,
        may_change=True,
        most=10_000,
    )

    def __post_init__(self) -> None:
        """Check each setting, and the settings that depend on each other."""
        super().__post_init__()
        if self.precision == "fp16" and "lft-exact" in self.methods:
            raise InputError(
                "the second derivatives of lft-exact overflow in fp16 with any scale "
                "of the losses: use precision bf16, or leave lft-exact out"
            )
        if self.base is not None and self.base == self.unseen:
            raise InputError(
                f"the base domain is used in training: expected a domain other than "
                f"the unseen domain, got {self.unseen!r} for both"
            )
        if self.augment and self.data is None:
            raise InputError(
                "the built-in glyphs are not augmented: expected a folder of "
                "photographs as data, got none; leave augment out or give data"
            )

    @property
    def processes(self) -> int:
        """Number of processes on all machines."""
        return self.devices * self.nodes

    def check_machine(self) -> None:
        """Refuse devices, memory or processes that this machine does not have."""
        super().check_machine()
        if self.data is None:
            check_glyphs(self.image_size)
        check_nodes(self.nodes)
        side = self.image_size or 24
        images = max(
            self.ways * (self.shots + max(self.queries, self.test_queries or 0)),
            self.pretrain_batch if self.pretrain_epochs else 0,
        )
        # Every encoder keeps 64 maps of a quarter of the pixels or more.
        check_memory(
            4 * images * side**2 * 64 / 4,
            f"the images of an episode or a batch (ways {self.ways}, shots "
            f"{self.shots}, queries {self.queries}, pretrain_batch "
            f"{self.pretrain_batch}, image_size {side})",
        )

    def resolved(self, names: Sequence[str], image_size: int) -> "CrossDomainSettings":
        """Return the settings with defaults for None, checked against the domains.

        Args:
            names: names of all domains.
            image_size: side of the images if the settings do not give it.

        Raises:
            InputError: for a domain that does not exist, or too few domains.
        """
        check_choice(self.unseen, names, "unseen domain")
        seen = sorted(name for name in names if name != self.unseen)
        if len(seen) < 2:
            raise InputError(
                f"expected at least two seen domains besides the unseen domain "
                f"{self.unseen!r}, one as pseudo-seen and one as pseudo-unseen domain, "
                f"got {', '.join(seen) or 'none'}; add domains to {self.data}"
            )
        built_in = self.data is None and BUILT_IN_BASE in seen
        base = self.base or (BUILT_IN_BASE if built_in else seen[0])
        check_choice(base, seen, "base domain")
        usual = "cosine" if self.head == "matchingnet" else "linear"
        return dataclasses.replace(
            self,
            base=base,
            device=found_device(self.device),
            image_size=self.image_size or image_size,
            pretrain_classifier=self.pretrain_classifier or usual,
        )
