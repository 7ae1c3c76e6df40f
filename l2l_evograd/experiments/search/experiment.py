"""The search experiment: several search methods on the settings of one command."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.experiment import Experiment, say
from l2l_evograd.experiments.files import write_json
from l2l_evograd.experiments.folder import BEST, SEARCH, SEARCHES
from l2l_evograd.experiments.progress import progress_bar
from l2l_evograd.experiments.results import RunResults, finite_or_none
from l2l_evograd.experiments.search.pictures import draw_search
from l2l_evograd.experiments.search.problem import make_problem
from l2l_evograd.experiments.search.report import conclusions, results_table
from l2l_evograd.experiments.search.results import SearchResults, best_of, mean_loss
from l2l_evograd.experiments.search.settings import SearchSettings
from l2l_evograd.experiments.search.space import range_text
from l2l_evograd.search import RECORD, BudgetError, SearchResult, search
from l2l_evograd.search.evaluation import fresh_seed

# The folder in which trainings keep their files while they run.
_TRAININGS = "trainings"


class _StartedError(Exception):
    """A search has accepted its arguments and begins to train."""


def _stop(*_: Any) -> float:
    raise _StartedError


class SearchExperiment(Experiment[SearchSettings]):
    """Searches of the settings of one command.

    Args:
        settings: settings of the run.
        out: folder of the run.
        console: console to print on.

    Raises:
        InputError: for settings of the command that do not exist, values out of range,
            or data with which the command could not train.
    """

    def __init__(self, settings: SearchSettings, out: Path, console: Console) -> None:
        super().__init__(settings, out, console)
        self.problem = make_problem(settings, out / _TRAININGS)
        self.problem.check()
        for method in settings.methods:
            self._check_search(method)
        self._defaults: dict[int, list[float | None]] = {}

    def announce(self) -> None:
        """Print what the run is going to do."""
        problem, settings = self.problem, self.settings
        space = "; ".join(f"{n} {range_text(v)}" for n, v in problem.space.items())
        for line in (
            f"Search of the settings of {problem.command}, method {problem.method}: "
            f"{space}",
            f"Trainings with {problem.searched.fidelity} of {problem.low} to "
            f"{problem.high}, in all {settings.budget:g} times {problem.high} in a "
            f"search; results in {self.out}",
        ):
            say(self.console, line)

    def run(self, resume: bool = False) -> RunResults:
        """Search with the methods and seeds without results, and return all results."""
        if not resume:
            shutil.rmtree(self.out / SEARCHES, ignore_errors=True)
            (self.out / BEST).unlink(missing_ok=True)
        with self._trainings():
            results = super().run(resume)
        best = best_of(results.runs)
        if best is not None:
            write_json(self.out / BEST, self.problem.best_settings(best["best"]))
        return results

    def data(self) -> Sequence[Any]:
        """Return a fingerprint of the data of the trainings."""
        first = self.problem.settings({}, self.problem.high, 0)
        return [self.problem.experiment(first, self.problem.folder).fingerprint]

    def results(self) -> RunResults:
        """Return the results that are in the folder so far."""
        problem = self.problem
        about = {
            "fingerprint": self.fingerprint,
            "command": problem.command,
            "method": problem.method,
            "space": {name: range_text(v) for name, v in problem.space.items()},
            "fidelity": problem.searched.fidelity,
            "low": problem.low,
            "high": problem.high,
        }
        return SearchResults(self.out, self.settings, {"search": about})

    def start(self, seed: int) -> None:
        """Do nothing, because every training starts from its own seed."""

    def one(self, seed: int, method: str, start: None) -> dict[str, Any]:
        """Search with one method, and compare what it found with the defaults."""
        settings, problem = self.settings, self.problem
        folder = self.out / SEARCHES / f"{seed}-{method}"
        began = time.perf_counter()
        with progress_bar(self.console) as progress:
            task = progress.add_task(method, total=self._budget, figures="")

            def after(evaluation: Any, spent: float) -> None:
                progress.update(
                    task, completed=spent, figures=f"loss {evaluation.loss:.3f}"
                )

            found = self._search(
                problem,
                method,
                seed=seed,
                workers=settings.workers,
                folder=folder,
                resume=(folder / RECORD).is_file(),
                progress=after,
            )
        seconds = time.perf_counter() - began
        fresh = [fresh_seed(seed, number) for number in range(settings.fresh_seeds)]
        if seed not in self._defaults:
            losses = [problem({}, problem.high, own) for own in fresh]
            self._defaults[seed] = [finite_or_none(loss) for loss in losses]
        seen = finite_or_none(found.searched_loss)
        shown = "every whole training diverged" if seen is None else f"loss {seen:.4f}"
        self.say(
            seed,
            f"{method}: {len(found.evaluations)} trainings in {seconds:.0f} s, {shown}",
        )
        default = problem.settings({}, problem.high, seed)
        return {
            "seed": seed,
            "method": method,
            "best": None if seen is None else dict(found.best),
            "default": {name: getattr(default, name) for name in problem.space},
            "searched_loss": seen,
            "fresh_seeds": fresh,
            "losses": [finite_or_none(loss) for loss in found.losses],
            "default_losses": self._defaults[seed],
            "spent": found.spent / problem.high,
            "seconds": seconds,
            "evaluations": [
                {
                    "config": dict(evaluation.config),
                    "fidelity": evaluation.fidelity,
                    "seed": evaluation.seed,
                    "loss": finite_or_none(evaluation.loss),
                    "seconds": evaluation.seconds,
                }
                for evaluation in found.evaluations
            ],
        }

    def draw(self, results: RunResults) -> None:
        """Draw the losses over what was spent, and over each setting."""
        draw_search(results, self.problem, self.out / SEARCH)

    def table(self, rows: Sequence[Mapping[str, Any]]) -> Table:
        """Return the summary as a table."""
        return results_table(rows, self.problem, self.settings)

    def conclusions(self, results: RunResults) -> Sequence[str]:
        """Return what the results show in words."""
        lines = conclusions(results)
        path, best = self.out / BEST, best_of(results.runs)
        if best is None:
            lines.append(f"No {BEST}, because trainings with the result diverged.")
        elif mean_loss(best["losses"]) < mean_loss(best["default_losses"]):
            lines.append(
                f"{path}: train with l2l-evograd {self.problem.command} --config {path}"
            )
        else:
            lines.append(
                f"{path} is no better than the default settings on fresh seeds; search "
                f"with a larger --budget, or keep the defaults"
            )
        return lines

    @property
    def _budget(self) -> float:
        """Budget of a search in the unit of the fidelity."""
        return self.settings.budget * self.problem.high

    def _search(
        self, train: Callable[[Any, int, int], float], method: str, **options: Any
    ) -> SearchResult:
        return search(
            train,
            self.problem.space,
            min_fidelity=self.problem.low,
            max_fidelity=self.problem.high,
            budget=self._budget,
            eta=self.settings.eta,
            method=method,
            fresh_seeds=self.settings.fresh_seeds,
            **options,
        )

    def _check_search(self, method: str) -> None:
        """Refuse what the search itself refuses, before anything is written.

        Raises:
            InputError: for a budget that is too small, or a library that is missing.
        """
        try:
            self._search(_stop, method)
        except _StartedError:
            return
        except BudgetError as error:
            high = self.problem.high
            raise InputError(
                f"expected budget to be at least {error.least / high:g}, trainings of "
                f"length {high}, so that {method} gets to a first one, got "
                f"{self.settings.budget:g}"
            ) from error
        except ImportError as error:
            raise InputError(str(error)) from error

    @contextlib.contextmanager
    def _trainings(self) -> Iterator[None]:
        """Remove what trainings left, before the body and after it."""
        folder = self.problem.folder
        shutil.rmtree(folder, ignore_errors=True)
        try:
            yield
        finally:
            shutil.rmtree(folder, ignore_errors=True)
