"""The commands whose settings can be searched.

This module imports no network library, because the command line's help needs it.
"""

import dataclasses
import pkgutil
from dataclasses import dataclass
from typing import Any

from l2l_evograd.checks import InputError, check_choice
from l2l_evograd.experiments.crossdomain.settings import CrossDomainSettings
from l2l_evograd.experiments.fewshot.settings import FewShotSettings
from l2l_evograd.experiments.noisy_labels.settings import NoisyLabelSettings
from l2l_evograd.experiments.rotation.settings import RotationSettings
from l2l_evograd.experiments.settings import RunSettings

_IN = "l2l_evograd.experiments"


@dataclass(frozen=True)
class Searched:
    """A command whose settings can be searched.

    Attributes:
        settings: class of its settings.
        experiment: name of its experiment's class, which is imported when it trains.
        method: the method that is trained if the user names none.
        data: name of the experiment's attribute, and of its argument, with the data.
        sources: settings that the data depend on.
    """

    settings: type[RunSettings]
    experiment: str
    method: str
    data: str
    sources: tuple[str, ...]

    @property
    def fidelity(self) -> str:
        """Name of the setting that says how long a training takes."""
        (name,) = self.settings.marked("fidelity")
        return name

    @property
    def usual_fidelity(self) -> int:
        """The longest training of a search if the user says nothing about it."""
        return int(self._field(self.fidelity).metadata["fidelity"])

    def least(self, name: str) -> int:
        """Return the least value of a whole number among the settings."""
        return int(self._field(name).metadata["least"])

    def make_experiment(self, *arguments: Any, **options: Any) -> Any:
        """Return the experiment that the class makes of these arguments."""
        return pkgutil.resolve_name(self.experiment)(*arguments, **options)

    def _field(self, name: str) -> "dataclasses.Field[Any]":
        return {f.name: f for f in dataclasses.fields(self.settings)}[name]


SEARCHED = {
    searched.settings.command: searched
    for searched in (
        Searched(
            CrossDomainSettings,
            f"{_IN}.crossdomain.experiment:CrossDomainExperiment",
            method="lft-guided",
            data="domains",
            sources=("data", "image_size", "backbone", "cache", "workers"),
        ),
        Searched(
            FewShotSettings,
            f"{_IN}.fewshot.experiment:FewShotExperiment",
            method="warpgrad",
            data="problem",
            sources=("data", "omniglot", "image_size"),
        ),
        Searched(
            NoisyLabelSettings,
            f"{_IN}.noisy_labels.experiment:NoisyLabelExperiment",
            method="guided",
            data="source",
            sources=("data", "image_size"),
        ),
        Searched(
            RotationSettings,
            f"{_IN}.rotation.experiment:RotationExperiment",
            method="evograd",
            data="digits",
            sources=("data",),
        ),
    )
}


def searched_command(name: str | None) -> Searched:
    """Return a command whose settings can be searched.

    Raises:
        InputError: if there is none of that name, or no name.
    """
    if name is None:
        raise InputError(
            f"expected the command whose settings are searched, one of "
            f"{', '.join(SEARCHED)}, as in: l2l-evograd search rotation"
        )
    check_choice(name, tuple(SEARCHED), "the command whose settings are searched")
    return SEARCHED[name]
