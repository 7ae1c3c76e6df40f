"""``l2l-evograd rotation``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from l2l_evograd.experiments.command import run_experiment
from l2l_evograd.experiments.options import NotAnOption, OutFolder, as_command
from l2l_evograd.experiments.output import printing
from l2l_evograd.experiments.rotation.settings import RotationSettings


@printing("rotation")
def rotation(
    given: Mapping[str, Any],
    *,
    out: OutFolder = Path("runs/rotation"),
    resume: bool = False,
    overwrite: bool = False,
    console: Annotated[Console | None, NotAnOption] = None,
) -> list[dict[str, Any]]:
    """Learn a rotation angle: train on upright digits, validate on rotated digits.

    Training digits are upright. Validation and test digits are turned by 30 degrees.
    The command compares training without learning the angle with learning it by the
    paper's Algorithm 1, a guided finite difference, and the exact hypergradient. It
    runs on the CPU.

    Args:
        given: the settings that the user gave, by name.
        out: Folder for results.
        resume: Train the methods and seeds that are missing in --out.
        overwrite: Replace the run in --out.
        console: console to print on; None: the standard output.

    Returns:
        The summary: one row for each method.

    Raises:
        InputError: for bad input, before anything is trained or written.
        KeyboardInterrupt: when interrupted; its text tells how to resume the run.
    """
    from l2l_evograd.experiments.rotation.experiment import RotationExperiment

    return run_experiment(
        RotationExperiment,
        RotationSettings,
        given,
        out=out,
        resume=resume,
        overwrite=overwrite,
        console=console,
    )


command = as_command(rotation, RotationSettings)
