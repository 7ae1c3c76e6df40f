"""Settings of a search."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from l2l_evograd.experiments.memory import GIB, check_memory
from l2l_evograd.experiments.options import NotAnOption
from l2l_evograd.experiments.settings import (
    MOST_SEEDS,
    Names,
    RunSettings,
    setting,
)
from l2l_evograd.search import METHODS


@dataclass(frozen=True, kw_only=True)
class SearchSettings(RunSettings):
    """Settings of a search. The help text of each setting explains it.

    Raises:
        InputError: for values out of range; the message names the valid values.
    """

    command: ClassVar[str] = "search"

    methods: Names = setting(
        ("dehb",), "Search methods, separated by commas.", choices=METHODS
    )
    seeds: int = setting(
        1,
        "Number of searches of each method; it may change with --resume.",
        least=1,
        identifies=False,
        may_change=True,
        most=MOST_SEEDS,
    )
    experiment: Annotated[str | None, NotAnOption] = setting(
        None, "Command whose settings are searched."
    )
    space: Annotated[dict[str, str] | None, NotAnOption] = setting(
        None, "Range or list of values for each setting that is searched, as text."
    )
    fixed: Annotated[dict[str, Any] | None, NotAnOption] = setting(
        None, "Other settings of the command."
    )
    fidelity: str | None = setting(
        None,
        "Lengths of the trainings, LOW..HIGH, in the setting that says how long they "
        "are: iterations; gradients for fewshot. Only trainings with HIGH count.",
        if_none="HIGH as set, or as is usual for the command; LOW is HIGH / 9",
    )
    budget: float = setting(
        12.0,
        "Budget of a search, in trainings of the length HIGH; a shorter training costs "
        "accordingly less. Fresh trainings with the result come on top.",
        positive=True,
    )
    eta: int = setting(
        3,
        "Factor between the lengths of the trainings; the best 1/eta of the settings "
        "are trained longer.",
        least=2,
        most=1000,
    )
    fresh_seeds: int = setting(
        3,
        "Number of fresh seeds, which no search saw, on which the found settings are "
        "compared with the command's defaults.",
        least=1,
        most=1000,
    )
    workers: int = setting(
        1,
        "Number of processes that train at the same time. Another number is another "
        "search, because less is known when a training starts.",
        least=1,
        most=256,
    )

    @property
    def side_by_side(self) -> int:
        """Number of processes that compute on this machine at the same time."""
        return self.workers

    def check_machine(self) -> None:
        """Refuse more processes than the memory of this machine is enough for."""
        super().check_machine()
        if self.workers > 1:
            check_memory(
                self.workers * GIB / 4,
                f"{self.workers} processes, each of which loads torch (--workers)",
            )
