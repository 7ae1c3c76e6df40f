"""Settings of the few-shot experiment."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.devices import check_device, found_device
from l2l_evograd.experiments.fewshot.methods import (
    METHODS,
    Method,
    Sizes,
    gradients_per_task,
)
from l2l_evograd.experiments.memory import check_memory
from l2l_evograd.experiments.settings import (
    MOST_RATE,
    MOST_SEEDS,
    Names,
    RunSettings,
    setting,
)
from l2l_evograd.experiments.values import LARGEST_SIDE, check_glyphs

# The usual budget of a method and seed, in thousands of gradients.
USUAL_GRADIENTS = 15

# Methods of the usual comparison.
USUAL_METHODS = (
    *("maml", "fomaml", "warpgrad", "warpgrad-frozen", "reptile", "aruba"),
)

_REPTILE = tuple(name for name, how in METHODS.items() if how.family == "reptile")
_OTHERS = tuple(name for name in METHODS if name not in _REPTILE)

WARP_KINDS = ("scale", "conv1x1", "conv3x3", "residual")
INITS = ("maml", "fomaml", "reptile", "leap")


@dataclass(frozen=True, kw_only=True)
class FewShotSettings(RunSettings):
    """Settings of a few-shot run. The help text of each setting explains it.

    Raises:
        InputError: for values out of range; the message names the valid values.
    """

    command: ClassVar[str] = "fewshot"
    exclusive: ClassVar[tuple[tuple[str, str], ...]] = (
        ("gradients", "seconds"),
        ("omniglot", "data"),
    )

    methods: Names = setting(
        USUAL_METHODS, "Methods to compare, separated by commas.", choices=METHODS
    )
    seeds: int = setting(
        3,
        "Number of seeds; it may change with --resume.",
        least=1,
        identifies=False,
        may_change=True,
        most=MOST_SEEDS,
    )
    device: str = setting("auto", "Device: auto, cpu, cuda or cuda:N.")
    omniglot: str | None = setting(
        None,
        "Folder with Omniglot's images_background_small1.zip, for meta-training, and "
        "images_background_small2.zip, for the test.",
        path=True,
    )
    data: str | None = setting(
        None,
        "Folder with the file lists base.json, for meta-training, val.json and "
        "novel.json, for the test.",
        if_none="built-in glyphs",
        path=True,
    )
    image_size: int | None = setting(
        None,
        "Side of the images in pixels.",
        least=16,
        if_none="20 for built-in glyphs, 28 for Omniglot; for --data, their own side, "
        "at most 84",
        most=LARGEST_SIDE,
    )
    ways: int = setting(5, "Number of classes of a task.", least=2, most=10_000)
    shots: int = setting(
        1, "Number of support images of each class.", least=1, most=10_000
    )
    queries: int = setting(
        5,
        "Number of query images of each class in meta-training.",
        least=1,
        most=10_000,
    )
    test_queries: int = setting(
        10, "Number of query images of each class at the test.", least=1, most=10_000
    )
    train_shots: int = setting(
        10,
        "reptile and aruba: number of images of each class in a meta-training task.",
        least=1,
        most=10_000,
    )
    batch_size: int = setting(
        10,
        "reptile and aruba: number of images in an inner step.",
        least=2,
        most=10_000,
    )
    steps: int = setting(
        3,
        "Number of inner steps in meta-training, of all but reptile and aruba.",
        least=1,
        search=(1, 5),
        used_by=_OTHERS,
        most=1000,
    )
    reptile_steps: int = setting(
        5,
        "Number of inner steps in meta-training, of reptile and aruba.",
        least=1,
        search=(2, 10),
        used_by=_REPTILE,
        most=1000,
    )
    test_steps: int = setting(
        10,
        "Number of inner steps at the test, all on the support images.",
        least=1,
        most=1000,
    )
    lr: float = setting(
        0.4,
        "Inner learning rate of all but reptile and aruba.",
        positive=True,
        search=(0.05, 1.0, "log"),
        used_by=_OTHERS,
        most=MOST_RATE,
    )
    reptile_lr: float = setting(
        0.4,
        "Inner learning rate of reptile, and the one that aruba starts with.",
        positive=True,
        search=(0.05, 1.0, "log"),
        used_by=_REPTILE,
        most=MOST_RATE,
    )
    meta_lr: float = setting(
        1e-2,
        "Learning rate of Adam, for all but reptile and aruba. It falls to 0.",
        positive=True,
        search=(1e-3, 5e-2, "log"),
        used_by=_OTHERS,
        most=MOST_RATE,
    )
    reptile_meta_lr: float = setting(
        1.0,
        "Learning rate of reptile's and aruba's meta-step. It falls to 0.",
        search=(0.1, 1.0, "log"),
        used_by=_REPTILE,
        most=MOST_RATE,
    )
    meta_batch: int = setting(
        2, "Number of tasks of a meta-iteration.", least=1, most=10_000
    )
    zeta: float = setting(
        0.1,
        "ARUBA: zeta, the weight of the rate at the start.",
        positive=True,
        search=(1e-2, 1.0, "log"),
        used_by=("aruba", "aruba++"),
    )
    plus: float = setting(
        10.0, "aruba++: c, by which rates fall at the test.", positive=True
    )
    warp: str = setting(
        "conv3x3", "Warp layer after each block of the network.", choices=WARP_KINDS
    )
    init: str = setting(
        "fomaml",
        "How the networks with warp layers learn their initial weights. This does not "
        "concern evograd, which uses fomaml.",
        choices=INITS,
    )
    hidden: int = setting(
        16, "Number of channels of the network's four blocks.", least=1, most=1024
    )
    gradients: int | None = setting(
        None,
        "Budget of each method and seed, in thousands of gradients; a gradient is a "
        "forward and a backward pass over one image.",
        least=1,
        if_none=f"{USUAL_GRADIENTS}; none with --seconds",
        fidelity=USUAL_GRADIENTS,
    )
    seconds: float | None = setting(
        None,
        "Budget of each method and seed, in seconds of process time, in place of "
        "--gradients. The number of meta-iterations then depends on the machine.",
        positive=True,
        most=10**8,
    )
    tasks: int = setting(
        50, "Number of tasks of the test.", least=2, test_size=True, most=10**6
    )
    validation_tasks: int = setting(
        10,
        "Number of tasks with validation classes, for ten points of the curve.",
        least=1,
        most=10**6,
    )

    def __post_init__(self) -> None:
        """Check each setting, and the settings that depend on each other."""
        super().__post_init__()
        if self.batch_size > self.ways * self.train_shots:
            raise InputError(
                f"expected a batch_size of at most {self.ways * self.train_shots}, the "
                f"images of a task ({self.ways} ways of {self.train_shots} "
                f"train_shots), got {self.batch_size}; lower it or raise train_shots"
            )
        for name in self.methods:
            least = self.gradients_per_iteration(METHODS[name])
            if self.budget is not None and self.budget < least:
                raise InputError(
                    f"a meta-iteration of {name} takes {least} gradients: expected "
                    f"gradients of at least {-(-least // 1000)} (thousands), got "
                    f"{self.gradients or USUAL_GRADIENTS}; raise it, or lower "
                    f"meta_batch, steps or queries"
                )

    @property
    def budget(self) -> int | None:
        """Number of gradients of a method and seed; None with a budget of seconds."""
        if self.seconds is not None:
            return None
        return 1000 * (self.gradients or USUAL_GRADIENTS)

    def steps_of(self, method: Method) -> int:
        """Return the number of inner steps of a method in meta-training."""
        return self.reptile_steps if method.family == "reptile" else self.steps

    def gradients_per_iteration(self, method: Method) -> int:
        """Return how many gradients a meta-iteration of a method computes."""
        sizes = Sizes(
            support=self.ways * self.shots,
            query=self.ways * self.queries,
            batch=self.batch_size,
            steps=self.steps_of(method),
            init=self.init,
        )
        return self.meta_batch * gradients_per_task(method, sizes)

    def resolved(self) -> "FewShotSettings":
        """Return the settings with the name of a device in place of "auto"."""
        return dataclasses.replace(self, device=found_device(self.device))

    def check_machine(self) -> None:
        """Refuse a device, memory or paths that this machine does not have."""
        super().check_machine()
        if self.data is None and self.omniglot is None:
            check_glyphs(self.image_size)
        check_device(self.device)
        side = self.image_size or 20
        images = max(
            self.ways * (self.shots + max(self.queries, self.test_queries)),
            self.batch_size,
        )
        # The first block keeps maps of half the side, before and after normalisation.
        check_memory(
            2 * 4 * images * side**2 / 4 * self.hidden,
            f"the images of a task (ways {self.ways}, shots {self.shots}, queries "
            f"{self.queries}, test_queries {self.test_queries}, image_size {side}, "
            f"hidden {self.hidden})",
        )
