"""Right command lines of every experiment, which end because their data are missing.

A line is read, and all of its settings are checked, before the data are looked for.
So the fault in a line that was changed is found first, and nothing is trained.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from l2l_evograd.experiments.crossdomain.settings import CrossDomainSettings
from l2l_evograd.experiments.fewshot.settings import FewShotSettings
from l2l_evograd.experiments.noisy_labels.settings import NoisyLabelSettings
from l2l_evograd.experiments.rotation.settings import RotationSettings
from l2l_evograd.experiments.schedules.settings import SchedulesSettings
from l2l_evograd.experiments.settings import RunSettings, kind_of

# Settings of each experiment, and a few values that are right in any combination.
RIGHT: Mapping[type[RunSettings], Mapping[str, Any]] = {
    CrossDomainSettings: {
        **{"ways": 3, "shots": 2, "lr": 0.002, "meta_lr": 0.5, "start_scale": 0.25},
        **{
            "iterations": 7,
            "episodes": 4,
            "seeds": 2,
            "device": "cpu",
            "auxiliary": True,
        },
    },
    FewShotSettings: {
        **{"ways": 3, "shots": 2, "lr": 0.25, "zeta": 0.5, "tasks": 4, "hidden": 8},
        **{"warp": "scale", "init": "leap", "device": "cpu", "seed": 17},
    },
    NoisyLabelSettings: {
        **{"noise_rate": 0.25, "imbalance": 2.0, "batch_size": 20, "width": 2},
        **{"epochs": 3, "lr": 0.03, "network": "small", "noise": "flip", "seed": 3},
    },
    RotationSettings: {
        **{"iterations": 12, "batch_size": 10, "lr": 0.002, "sigma": 0.01, "h": 0.5},
        **{"candidates": 4, "temperature": 0.25, "seeds": 3, "seed": 4294967295},
    },
    SchedulesSettings: {
        **{"steps": 40, "windows": 4, "lr": 0.05, "momentum": 0.5, "fresh_seeds": 2},
        **{"network": "conv", "batch_size": 10, "methods": ("constant", "random")},
    },
}
KINDS = tuple(RIGHT)

NOWHERE = "no-such-data"


class Line(NamedTuple):
    """A command line.

    Attributes:
        kind: settings of its command.
        given: the settings that it gives, by name.
        words: its words after the command, without the folders.
    """

    kind: type[RunSettings]
    given: Mapping[str, Any]
    words: Sequence[str]

    def ending(self, folder: Path) -> list[str]:
        """Return the words that let it write to ``folder`` and find no data."""
        return ["--out", str(folder / "run"), "--data", str(folder / NOWHERE)]

    def whole(self, folder: Path) -> list[str]:
        """Return all words."""
        return [self.kind.command, *self.words, *self.ending(folder)]


def right_line(chance: random.Random, kind: type[RunSettings] | None = None) -> Line:
    """Return a line with some of the settings in RIGHT, in any order and form."""
    kind = kind or chance.choice(KINDS)
    names = chance.sample(sorted(RIGHT[kind]), chance.randint(1, 5))
    given = {name: RIGHT[kind][name] for name in names}
    words = [w for name, value in given.items() for w in written(chance, name, value)]
    return Line(kind, given, words)


def written(chance: random.Random, name: str, value: Any) -> list[str]:
    """Return the words that give a setting, in one of the forms that are right."""
    option = option_of(name)
    if value is True:
        return [chance.choice((option, f"{option}=true", f"{option}=True"))]
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    if isinstance(value, float):
        text = chance.choice((text, f"{value:e}", f"{value:E}", f"+{text}"))
        text = text[1:] if text.startswith("0.") and chance.random() < 0.3 else text
    elif isinstance(value, int):
        text = chance.choice((text, f"+{text}", f"0{text}"))
    again = [option, text] if chance.random() < 0.2 else []
    return [*again, *chance.choice(([option, text], [f"{option}={text}"]))]


def option_of(name: str) -> str:
    """Return the option of a setting."""
    return f"--{name.replace('_', '-')}"


def settings_of_type(kind: type[RunSettings], *types: type) -> list[str]:
    """Return the names of the settings that have one of some types."""
    hints = get_type_hints(kind)
    return [f.name for f in fields(kind) if kind_of(hints[f.name])[0] in types]


def content_of(folder: Path) -> dict[str, int]:
    """Return every file and folder in a folder, with the time of its last change."""
    return {str(p): p.lstat().st_mtime_ns for p in sorted(folder.rglob("*"))}
