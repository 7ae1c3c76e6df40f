"""Settings of the schedules experiment."""

from dataclasses import dataclass
from typing import ClassVar

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.memory import check_memory
from l2l_evograd.experiments.schedules.methods import (
    ETA,
    METHODS,
    USUAL_METHODS,
    first_whole_run,
    gradients_per_run,
)
from l2l_evograd.experiments.settings import (
    MOST_RATE,
    MOST_SEEDS,
    Names,
    RunSettings,
    setting,
)

NETWORKS = ("mlp", "conv")

# The momentum of all runs is a multiple of 1/256, which reversible SGD represents.
DENOMINATOR = 256


@dataclass(frozen=True, kw_only=True)
class SchedulesSettings(RunSettings):
    """Settings of a schedules run. The help text of each setting explains it.

    Raises:
        InputError: for values out of range; the message names the valid values.
    """

    command: ClassVar[str] = "schedules"

    methods: Names = setting(
        USUAL_METHODS, "Methods to compare, separated by commas.", choices=METHODS
    )
    seeds: int = setting(
        3,
        "Number of searches of each method; it may change with --resume.",
        least=1,
        identifies=False,
        may_change=True,
        most=MOST_SEEDS,
    )
    fresh_seeds: int = setting(
        5,
        "Number of new runs, with new initial weights and batches, in which each found "
        "schedule is tested.",
        least=1,
        most=10_000,
    )
    data: str | None = setting(
        None,
        "Folder with MNIST's files, or with the folders train and test, which have a "
        "folder for each class, or with CIFAR as torchvision writes it.",
        if_none="built-in digits",
        path=True,
    )
    network: str = setting(
        "mlp",
        "Network to train: a perceptron with 32 hidden units, or two convolutions.",
        choices=NETWORKS,
    )
    budget: int = setting(
        10_000,
        "Budget of each method and search, in gradients; a gradient is a forward and a "
        "backward pass over one batch, a Hessian-vector product counts as 2.",
        least=1,
    )
    steps: int = setting(
        200, "Number of steps of a training run.", least=1, most=100_000
    )
    windows: int = setting(
        8,
        "Number of windows of the learned schedules; the steps of a window share one "
        "rate.",
        least=1,
        most=1000,
    )
    batch_size: int = setting(100, "Number of images in a batch.", least=1, most=10_000)
    momentum: float = setting(
        0.9,
        "Momentum of all training runs; it is rounded to a multiple of 1/256.",
        most=1,
    )
    lr: float = setting(
        0.1,
        "Learning rate that greedy, fds and the reversible methods start with.",
        positive=True,
        most=MOST_RATE,
    )
    lr_least: float = setting(
        1e-3,
        "Least learning rate of constant, cosine, dehb and random.",
        positive=True,
        most=MOST_RATE,
    )
    lr_most: float = setting(
        1.0, "Largest learning rate of all methods.", positive=True, most=MOST_RATE
    )
    meta_lr: float = setting(
        0.1,
        "First step of sign descent, in units of the learning rate; Adam's learning "
        "rate in reversible-steps.",
        positive=True,
        most=MOST_RATE,
    )

    def __post_init__(self) -> None:
        """Check each setting, and the settings that depend on each other."""
        super().__post_init__()
        if (
            not self.lr_least <= self.lr <= self.lr_most
            or self.lr_least == self.lr_most
        ):
            raise InputError(
                f"expected lr_least <= lr <= lr_most, and lr_least below lr_most, got "
                f"{self.lr_least}, {self.lr} and {self.lr_most}"
            )
        if self.windows > self.steps:
            raise InputError(
                f"expected at most {self.steps} windows, no more than there are steps, "
                f"got {self.windows}"
            )
        if self.momentum >= 1:
            raise InputError(f"expected momentum to be below 1, got {self.momentum}")
        reversible = [name for name in self.methods if name.startswith("reversible")]
        if reversible and self.rounded_momentum == 0:
            raise InputError(
                f"{reversible[0]} cannot take back a run without momentum: expected "
                f"momentum of at least {0.5 / DENOMINATOR:.1g}, got {self.momentum}; "
                f"raise it, or leave {', '.join(reversible)} out of methods"
            )
        for name in self.methods:
            least = self.gradients_per_run(name)
            if name == "dehb":
                least = self._least_of_dehb()
            if self.budget < least:
                raise InputError(
                    f"{name} takes {least} gradients until its first training run is "
                    f"over: expected a budget of at least {least}, got {self.budget}; "
                    f"raise it, or lower steps or windows"
                )

    def check_machine(self) -> None:
        """Refuse memory or paths that this machine does not have."""
        super().check_machine()
        check_memory(
            8 * self.steps * self.batch_size,
            f"the batches of a run (steps {self.steps}, batch_size {self.batch_size})",
        )

    @property
    def rounded_momentum(self) -> float:
        """The momentum of all training runs."""
        nearest = round(self.momentum * DENOMINATOR)
        return min(nearest, DENOMINATOR - 1) / DENOMINATOR

    def gradients_per_run(self, method: str) -> int:
        """Return how many gradients a method computes for one whole training run."""
        return gradients_per_run(method, self.steps, self.windows)

    def _least_of_dehb(self) -> int:
        least = first_whole_run(self.steps, self.windows)
        if least is None:
            raise InputError(
                f"dehb makes short runs that go through all windows: expected at "
                f"least {ETA * self.windows} steps for {self.windows} windows, got "
                f"{self.steps}; raise steps, lower windows, or leave dehb out of "
                f"methods"
            )
        return least
