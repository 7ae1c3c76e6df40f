"""``l2l-evograd schedules``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from l2l_evograd.experiments.command import run_experiment
from l2l_evograd.experiments.options import NotAnOption, OutFolder, as_command
from l2l_evograd.experiments.output import printing
from l2l_evograd.experiments.schedules.settings import SchedulesSettings


@printing("schedules")
def schedules(
    given: Mapping[str, Any],
    *,
    out: OutFolder = Path("runs/schedules"),
    resume: bool = False,
    overwrite: bool = False,
    console: Annotated[Console | None, NotAnOption] = None,
) -> list[dict[str, Any]]:
    """Learn the learning rates of a training run by several methods, at equal budgets.

    A network is trained by SGD with momentum. The methods search a learning rate for
    each window of steps: hypergradients through the whole run by forward mode (FDS) or
    reversible SGD, or one step ahead (greedy); DEHB; random search. A constant rate and
    a cosine are tuned on a grid. Every found schedule is tested in new training runs,
    with initial weights and batches that no search saw. The command runs on the CPU.

    Args:
        given: the settings that the user gave, by name.
        out: Folder for results.
        resume: Search with the methods and seeds that are missing in --out.
        overwrite: Replace the run in --out.
        console: console to print on; None: the standard output.

    Returns:
        The summary: one row for each method.

    Raises:
        InputError: for bad input, before anything is trained or written.
        KeyboardInterrupt: when interrupted; its text tells how to resume the run.
    """
    from l2l_evograd.experiments.schedules.experiment import SchedulesExperiment

    return run_experiment(
        SchedulesExperiment,
        SchedulesSettings,
        given,
        out=out,
        resume=resume,
        overwrite=overwrite,
        console=console,
    )


command = as_command(schedules, SchedulesSettings)
