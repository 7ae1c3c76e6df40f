"""The settings of a cross-domain experiment, checked before anything else happens."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from l2l_evograd.fewshot.backbones import BACKBONES
from l2l_evograd.fewshot.heads import HEADS
from l2l_evograd.fewshot.methods import METHODS
from l2l_evograd.fewshot.pretraining import CLASSIFIERS
from l2l_evograd.runs.precision import PRECISIONS
from l2l_evograd.runs.processes import check_devices, check_nodes
from l2l_evograd.runs.settings import (
    RunSettings,
    check_device,
    check_methods,
    check_one_of,
    check_rate,
    check_whole,
    found_device,
)

# Sizes used in the literature for photographs, and the size of the built-in glyphs.
PHOTOGRAPH_SIZES = {
    "cnn4": 84,
    "conv4": 84,
    "conv6": 84,
    "resnet10": 224,
    "resnet18": 224,
    "resnet34": 224,
}
BUILT_IN_SIZE = 32
BUILT_IN_BASE = "print"

_LEAST = {
    "ways": 2,
    "shots": 1,
    "queries": 1,
    "iterations": 1,
    "pretrain_epochs": 0,
    "episodes": 2,
    "save_every": 1,
    "domain_block": 1,
    "pretrain_batch": 2,
    "accumulate": 1,
    "workers": 0,
}
_LEAST_IF_GIVEN = {"image_size": 16, "test_queries": 1, "pretrain_classes": 2}


@dataclass(frozen=True)
class CrossDomainSettings(RunSettings):
    """All that the figures of a run depend on.

    Attributes:
        unseen: the domain that is left out of training and tested on.
        base: the domain of the ordinary pre-training; None: "print" of the built-in
            domains, else the first in alphabetical order that is not the unseen one.
        data: folder of domains as file lists; None: the built-in glyphs.
        methods: what to compare, names of :data:`METHODS`, in this order.
        head: a name in :data:`~l2l_evograd.fewshot.heads.HEADS`.
        backbone: a name in :data:`~l2l_evograd.fewshot.backbones.BACKBONES`.
        ways: classes of an episode.
        shots: support images of a class.
        queries: query images of a class.
        test_queries: the same in test episodes; None: as many.
        image_size: side in pixels; None: chosen from the data and the backbone.
        iterations: of meta-training, the same for every method.
        domain_block: consecutive episodes that the pseudo-seen and the pseudo-unseen
            domain stay for.
        augment: crop, jitter and mirror photographs in training.
        auxiliary: learn ordinary classification of the base domain beside.
        pretrain_epochs: passes over the base domain's base classes; 0: no
            pre-training.
        pretrain_batch: images of a batch of pre-training.
        pretrain_classes: outputs of its classifier; None: as many as there are
            classes.
        pretrain_classifier: ``"linear"`` or ``"cosine"`` (baseline and baseline++ of
            the literature); None: ``"cosine"`` for MatchingNet, else ``"linear"``.
        episodes: test episodes.
        lr: of Adam over the weights, and η of the virtual step.
        meta_lr: of Adam over the transformation's parameters.
        seed: the first seed.
        seeds: how many seeds, counted up from ``seed``.
        precision: one of :data:`~l2l_evograd.runs.precision.PRECISIONS`.
        accumulate: episode pairs of an iteration in each process.
        device: "cpu", "cuda", "cuda:1" or "auto", an accelerator if there is one.
        devices: processes on each machine, each with episodes of its own.
        nodes: machines.
        save_every: iterations from one checkpoint to the next.
        workers: processes that read images ahead; 0: none.
        cache: GiB that decoded images may take.

    Raises:
        ValueError, TypeError: for values out of range, naming the valid ones.
    """

    command: ClassVar[str] = "crossdomain"
    free: ClassVar[tuple[str, ...]] = ("workers", "cache")

    unseen: str = "sketch"
    base: str | None = None
    data: str | None = None
    methods: tuple[str, ...] = tuple(METHODS)
    head: str = "protonet"
    backbone: str = "cnn4"
    ways: int = 5
    shots: int = 5
    queries: int = 8
    test_queries: int | None = None
    image_size: int | None = None
    iterations: int = 100
    domain_block: int = 1
    augment: bool = False
    auxiliary: bool = False
    pretrain_epochs: int = 15
    pretrain_batch: int = 64
    pretrain_classes: int | None = None
    pretrain_classifier: str | None = None
    episodes: int = 600
    lr: float = 1e-3
    meta_lr: float = 1e-2
    seed: int = 0
    seeds: int = 1
    precision: str = "32"
    accumulate: int = 1
    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    save_every: int = 25
    workers: int = 0
    cache: float = 2.0

    def __post_init__(self) -> None:
        """Refuse what no run can be made from."""
        super().__post_init__()
        for name, least in _LEAST.items():
            check_whole(name, getattr(self, name), least)
        for name, least in _LEAST_IF_GIVEN.items():
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), least)
        for name in ("lr", "meta_lr", "cache"):
            check_rate(name, getattr(self, name))
        check_one_of("head", self.head, HEADS)
        check_one_of("backbone", self.backbone, BACKBONES)
        check_one_of("precision", self.precision, PRECISIONS)
        if self.precision == "fp16" and "lft-exact" in self.methods:
            raise ValueError(
                "the second derivatives of lft-exact overflow in fp16, whatever the "
                "scale of the losses: take precision bf16, or leave lft-exact out"
            )
        if self.pretrain_classifier is not None:
            check_one_of("pretrain_classifier", self.pretrain_classifier, CLASSIFIERS)
        check_methods(self.methods, METHODS)
        if self.base is not None and self.base == self.unseen:
            raise ValueError(
                f"the base domain is seen in training: expected another one than the "
                f"unseen domain {self.unseen!r}"
            )
        if self.augment and self.data is None:
            raise ValueError(
                "the built-in glyphs are not augmented: expected data, a folder of "
                "photographs, with augment"
            )
        check_device(self.device)
        check_devices(self.devices, self.device)
        check_nodes(self.nodes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Ways, shots and queries of training."""
        return self.ways, self.shots, self.queries

    @property
    def test_shape(self) -> tuple[int, int, int]:
        """Ways, shots and queries of the test."""
        return self.ways, self.shots, self.test_queries or self.queries

    def resolved(
        self, names: Sequence[str], image_size: int | None = None
    ) -> "CrossDomainSettings":
        """Return the settings with nothing left open, checked against the domains.

        Args:
            names: the domains there are.
            image_size: what to take if the settings leave it open.

        Raises:
            ValueError: for a domain that does not exist, or too few of them.
        """
        check_one_of("unseen domain", self.unseen, names)
        seen = sorted(name for name in names if name != self.unseen)
        if len(seen) < 2:
            raise ValueError(
                f"expected at least two seen domains besides the unseen one "
                f"{self.unseen!r}, a pseudo-seen and a pseudo-unseen one, got "
                f"{', '.join(seen) or 'none'}; add domains to {self.data}"
            )
        base = self.base
        if base is None:
            base = BUILT_IN_BASE if self.data is None else seen[0]
            if base not in seen:
                base = seen[0]
        check_one_of("base domain", base, seen)
        size = self.image_size if self.image_size is not None else image_size
        usual = "cosine" if self.head == "matchingnet" else "linear"
        return dataclasses.replace(
            self,
            base=base,
            device=found_device(self.device),
            image_size=size,
            pretrain_classifier=self.pretrain_classifier or usual,
        )


def default_image_size(backbone: str, own_size: int | None) -> int:
    """Return the side of the images where none is asked for.

    Args:
        backbone: a name in :data:`~l2l_evograd.fewshot.backbones.BACKBONES`.
        own_size: the smallest side of the images on disk; None: built-in domains.

    Returns:
        32 for the glyphs; for photographs 84 (cnn4) or 224 (ResNets), or the images'
        own size where that is smaller, because enlarging adds cost and no detail.
    """
    if own_size is None:
        return BUILT_IN_SIZE
    return min(PHOTOGRAPH_SIZES[backbone], own_size)


def data_folder(settings: CrossDomainSettings) -> Path | None:
    """Return the folder of domains, with ``~`` expanded; None: built-in domains."""
    return None if settings.data is None else Path(settings.data).expanduser()
