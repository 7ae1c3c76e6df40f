"""The base class of experiments, which compare several methods over several seeds."""

import abc
import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from rich.console import Console
from rich.table import Table

import l2l_evograd
from l2l_evograd.experiments.digests import fingerprint
from l2l_evograd.experiments.folder import FORMAT, changed, make_folder, versions
from l2l_evograd.experiments.processes import leads, wait
from l2l_evograd.experiments.results import RunResults
from l2l_evograd.experiments.settings import RunSettings

Settings = TypeVar("Settings", bound=RunSettings)


class Experiment(abc.ABC, Generic[Settings]):
    """The loop over seeds and methods. Each experiment defines the abstract methods.

    For each seed, all methods start from the same :meth:`start`. The results of each
    finished method are written to the folder. A resumed run trains only the methods
    whose results are missing.

    Args:
        settings: complete, checked settings.
        out: folder of the run.
        console: console to print on.

    Attributes:
        settings, out, console: as given.
    """

    def __init__(self, settings: Settings, out: Path, console: Console) -> None:
        self.settings = settings
        self.out = out
        self.console = console

    def run(self, resume: bool = False) -> RunResults:
        """Train and test the methods without results, and return all results.

        The run writes settings, checkpoints, logs and results to ``out``.

        Args:
            resume: keep the files of an earlier process; otherwise they are removed.
        """
        if leads(self.settings.processes):
            settings = self.settings
            make_folder(self.out, settings.command, settings.to_dict(), resume=resume)
            self.fill_folder()
        wait()
        results = self.results()
        self._tell_versions(results)
        for seed in self.settings.all_seeds:
            missing = [m for m in self.settings.methods if not results.has(seed, m)]
            if missing:
                start = self.start(seed)
                for method in missing:
                    with self._said(seed):
                        found = self.one(seed, method, start)
                    results.add(found)
        return results

    @contextlib.contextmanager
    def _said(self, seed: int) -> Iterator[None]:
        """Say the warnings of the body on the console, each once."""
        with warnings.catch_warnings(record=True) as caught:
            yield
        for text in dict.fromkeys(str(warning.message) for warning in caught):
            self.say(seed, f"warning: {text}")

    def _tell_versions(self, results: RunResults) -> None:
        """Say which software earlier results come from, if it is not this one."""
        then, now = results.top.get("versions"), versions()
        if not isinstance(then, Mapping):
            return
        for name, before, after in changed(then, now):
            say(
                self.console,
                f"the results so far come from {name} {before}, and those to come "
                f"from {name} {after}; they may not agree bit for bit",
            )

    @cached_property
    def fingerprint(self) -> str:
        """A short digest of the data; other data have another one."""
        return fingerprint(*self.data())

    def identity(self, seed: int, **more: Any) -> dict[str, Any]:
        """Return the training that a checkpoint belongs to, by names the user knows.

        Args:
            seed: seed of the training.
            **more: what else tells it from the other trainings of the run.
        """
        settings = self.settings
        left_out = {"methods", "seeds", *settings.marked("may_change")}
        values = settings.to_dict().items()
        return {
            "format": FORMAT,
            "l2l_evograd": l2l_evograd.__version__,
            "command": settings.command,
            "data": self.fingerprint,
            **{name: value for name, value in values if name not in left_out},
            "seed": seed,
            **more,
        }

    def say(self, seed: int, text: str) -> None:
        """Print one line, with the seed if there are several seeds."""
        several = self.settings.seeds > 1
        say(self.console, f"seed {seed}: {text}" if several else text)

    def fill_folder(self) -> None:
        """Write the experiment's own files, if it has any, to the folder of the run."""
        return

    def prepare_validation(self) -> None:
        """Let :meth:`one` compute the validation loss, where it usually does not.

        Raises:
            InputError: if there are too few data for it.
        """
        return

    @abc.abstractmethod
    def data(self) -> Sequence[Any]:
        """Return what results depend on besides settings: tensors, numbers, text."""

    @abc.abstractmethod
    def announce(self) -> None:
        """Print what the run is going to do."""

    @abc.abstractmethod
    def results(self) -> RunResults:
        """Return the results that are in the folder so far."""

    @abc.abstractmethod
    def start(self, seed: int) -> Any:
        """Return the state that all methods of a seed start from."""

    @abc.abstractmethod
    def one(self, seed: int, method: str, start: Any) -> Mapping[str, Any]:
        """Train and test one method, and return its results.

        For ``l2l-evograd search``, they have an entry ``validation_loss``, which does
        not depend on the test data; None if it is not finite.
        """

    @abc.abstractmethod
    def draw(self, results: RunResults) -> None:
        """Draw the pictures of the run."""

    def conclusions(self, results: RunResults) -> Sequence[str]:
        """Return what the results show in words, one line for each statement."""
        return ()

    @abc.abstractmethod
    def table(self, rows: Sequence[Mapping[str, Any]]) -> Table:
        """Return the summary as a table."""


def say(console: Console, text: str) -> None:
    """Print one line without colours and without wrapping it."""
    console.print(text, highlight=False, soft_wrap=True)
