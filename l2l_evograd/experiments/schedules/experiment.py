"""The schedules experiment: several ways to find a schedule, at equal budgets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from l2l_evograd.experiments.experiment import Experiment, say
from l2l_evograd.experiments.folder import SCHEDULES, TRAINING
from l2l_evograd.experiments.progress import progress_bar
from l2l_evograd.experiments.results import RunResults
from l2l_evograd.experiments.schedules.blackbox import check_installed
from l2l_evograd.experiments.schedules.methods import METHODS
from l2l_evograd.experiments.schedules.pictures import draw_budget, draw_schedules
from l2l_evograd.experiments.schedules.problem import Problem
from l2l_evograd.experiments.schedules.report import conclusions, results_table
from l2l_evograd.experiments.schedules.results import SchedulesResults, test_loss
from l2l_evograd.experiments.schedules.settings import SchedulesSettings
from l2l_evograd.experiments.schedules.sources import Splits, read_splits
from l2l_evograd.experiments.schedules.training import find_schedule


class SchedulesExperiment(Experiment[SchedulesSettings]):
    """The schedules experiment, on the CPU.

    Args:
        settings: settings of the run.
        out: folder of the run.
        console: console to print on.
        splits: the images; None: the images that the settings name.

    Raises:
        InputError: for images that cannot be read, or if a method's library is not
            installed.
    """

    def __init__(
        self,
        settings: SchedulesSettings,
        out: Path,
        console: Console,
        splits: Splits | None = None,
    ) -> None:
        super().__init__(settings, out, console)
        check_installed(settings.methods)
        self.splits = read_splits(settings.data, console) if splits is None else splits
        self.problem = Problem(self.splits, settings)

    def announce(self) -> None:
        """Print what the run is going to do."""
        settings, splits = self.settings, self.splits
        for line in (
            f"Schedules, {splits.source}, {settings.network}: "
            f"{len(splits.train)} training, "
            f"{len(splits.validation)} validation and {len(splits.test)} test images",
            f"{settings.steps} steps with {settings.windows} windows; "
            f"{settings.budget:,} gradients for each method and search, "
            f"{settings.seeds} {'search' if settings.seeds == 1 else 'searches'}; "
            f"results in {self.out}",
        ):
            say(self.console, line)

    def data(self) -> Sequence[Any]:
        """Return the images of all splits."""
        splits = self.splits
        return [*splits.train, *splits.validation, *splits.test]

    def results(self) -> RunResults:
        """Return the results that are in the folder so far."""
        splits = self.splits
        about = {
            "source": splits.source,
            "fingerprint": self.fingerprint,
            "classes": splits.classes,
            "train": len(splits.train),
            "validation": len(splits.validation),
            "test": len(splits.test),
        }
        return SchedulesResults(self.out, self.settings, {"data": about})

    def start(self, seed: int) -> None:
        """Do nothing, because every run draws its weights from a seed."""

    def one(self, seed: int, method: str, start: None) -> dict[str, Any]:
        """Search with one method, test what it found, and return its results."""
        self.say(seed, f"{method}: {METHODS[method].summary}")
        with progress_bar(self.console) as progress:
            task = progress.add_task(method, total=self.settings.budget, figures="")

            def after(spent: int, best: float | None) -> None:
                shown = "" if best is None else f"loss {best:.3f}"
                progress.update(task, completed=spent, figures=shown)

            found = find_schedule(self.problem, method, seed, after)
        loss = found["searched_loss"]
        seen = "every run diverged" if loss is None else f"validation loss {loss:.3f}"
        runs = "1 run" if found["runs"] == 1 else f"{found['runs']} runs"
        text = (
            f"{method}: {runs}, {found['gradients']:,} gradients, {seen} in the search"
        )
        tested = test_loss(found)
        if tested is not None:
            text += f"; test loss {tested:.3f} in new runs"
        self.say(seed, text)
        return found

    def draw(self, results: RunResults) -> None:
        """Draw the pictures of the schedules and of the searches."""
        draw_schedules(results, self._title, self.out / SCHEDULES)
        draw_budget(results, self._title, self.out / TRAINING)

    def table(self, rows: Sequence[Mapping[str, Any]]) -> Table:
        """Return the summary as a table."""
        return results_table(rows, self.settings, f"Schedules, {self._title}")

    def conclusions(self, results: RunResults) -> Sequence[str]:
        """Return what the results show in words."""
        return conclusions(results)

    @property
    def _title(self) -> str:
        return f"{Path(self.splits.source).name}, {self.settings.network}"
