"""Settings of a run that are few enough for a test."""

from dataclasses import dataclass
from typing import ClassVar

from l2l_evograd.experiments.settings import Names, RunSettings, setting


@dataclass(frozen=True, kw_only=True)
class Settings(RunSettings):
    """One setting that is fixed in a run, and one that may change."""

    command: ClassVar[str] = "some"

    methods: Names = setting(("a", "b"), "Methods.", choices="ab")
    ways: int = setting(2, "Ways.", least=2)
    workers: int = setting(0, "Workers.", may_change=True)
