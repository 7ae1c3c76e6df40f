"""The rotation experiment: several ways to learn the angle, for several seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from l2l_evograd.data.digits import ANGLE, DigitSplits, built_in_digits, read_digits
from l2l_evograd.data.folders import given_path
from l2l_evograd.experiments.experiment import Experiment, say
from l2l_evograd.experiments.folder import ACCURACY, ANGLES
from l2l_evograd.experiments.progress import progress_bar
from l2l_evograd.experiments.results import RunResults
from l2l_evograd.experiments.rotation.problem import train
from l2l_evograd.experiments.rotation.report import (
    draw_accuracies,
    draw_angles,
    results_table,
)
from l2l_evograd.experiments.rotation.results import RotationResults
from l2l_evograd.experiments.rotation.settings import RotationSettings


class RotationExperiment(Experiment[RotationSettings]):
    """The rotation experiment, on the CPU.

    Args:
        settings: settings of the run.
        out: folder of the run.
        console: console to print on.
        digits: the digits; None: the digits that the settings name.

    Raises:
        InputError: for a folder without MNIST's files.
    """

    def __init__(
        self,
        settings: RotationSettings,
        out: Path,
        console: Console,
        digits: DigitSplits | None = None,
    ) -> None:
        super().__init__(settings, out, console)
        if digits is not None:
            self.digits = digits
        elif settings.data is None:
            self.digits = built_in_digits()
        else:
            self.digits = read_digits(given_path(settings.data))

    def announce(self) -> None:
        """Print what the run is going to do."""
        digits, settings = self.digits, self.settings
        seeds = "one seed" if settings.seeds == 1 else f"{settings.seeds} seeds"
        say(
            self.console,
            f"Rotation: {digits.source}; {len(digits.train)} upright training digits; "
            f"{len(digits.validation)} validation and {len(digits.test)} test digits, "
            f"turned by {ANGLE:.0f} degrees; {settings.iterations} iterations, {seeds}",
        )

    def data(self) -> Sequence[Any]:
        """Return the digits of all splits."""
        digits = self.digits
        return [*digits.train, *digits.validation, *digits.test]

    def results(self) -> RunResults:
        """Return the results that are in the folder so far."""
        digits = self.digits
        about = {
            "source": digits.source,
            "fingerprint": self.fingerprint,
            "train": len(digits.train),
            "validation": len(digits.validation),
            "test": len(digits.test),
            "true_angle": ANGLE,
        }
        return RotationResults(self.out, self.settings, {"data": about})

    def start(self, seed: int) -> None:
        """Do nothing, because every method makes its network from the seed."""

    def one(self, seed: int, method: str, start: None) -> dict[str, Any]:
        """Train and test one method, and return its results."""
        with progress_bar(self.console) as progress:
            task = progress.add_task(method, total=self.settings.iterations, figures="")

            def after(done: int, loss: float) -> None:
                progress.update(task, completed=done, figures=f"loss {loss:.3f}")

            found = train(method, self.digits, self.settings, seed, after)
        angle = found["angle"]
        self.say(
            seed,
            f"{method}: accuracy {found['accuracy']:.2%} on turned digits"
            + ("" if angle is None else f", angle {angle:.1f}°"),
        )
        return found

    def draw(self, results: RunResults) -> None:
        """Draw the pictures of the angles and the accuracies."""
        draw_angles(results.runs, self.out / ANGLES)
        draw_accuracies(results.summary(), self.out / ACCURACY)

    def table(self, rows: Sequence[Mapping[str, Any]]) -> Table:
        """Return the summary as a table."""
        return results_table(rows)
