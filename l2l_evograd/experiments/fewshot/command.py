"""``l2l-evograd fewshot``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from l2l_evograd.experiments.command import run_experiment
from l2l_evograd.experiments.fewshot.settings import FewShotSettings
from l2l_evograd.experiments.options import NotAnOption, OutFolder, as_command
from l2l_evograd.experiments.output import printing


@printing("fewshot")
def fewshot(
    given: Mapping[str, Any],
    *,
    out: OutFolder = Path("runs/fewshot"),
    resume: bool = False,
    overwrite: bool = False,
    console: Annotated[Console | None, NotAnOption] = None,
) -> list[dict[str, Any]]:
    """Compare meta-learning algorithms on one few-shot problem, with equal budgets.

    MAML, first-order MAML, ANIL and Meta-SGD are learn2learn's. Beside them are
    Reptile, WarpGrad (exact, first order, with EvoGrad, and as a control with warp
    layers that are never trained), and ARUBA. All methods see the same tasks and may
    compute the same number of gradients. They are tested on new classes, before and
    after every step of adaptation.

    Args:
        given: the settings that the user gave, by name.
        out: Folder for results, checkpoints and logs.
        resume: Resume the run in --out.
        overwrite: Replace the run in --out.
        console: console to print on; None: the standard output.

    Returns:
        The summary: one row for each method.

    Raises:
        InputError: for bad input, before anything is trained or written.
        KeyboardInterrupt: when interrupted; its text tells how to resume the run.
    """
    from l2l_evograd.experiments.fewshot.experiment import FewShotExperiment

    return run_experiment(
        FewShotExperiment,
        FewShotSettings,
        given,
        out=out,
        resume=resume,
        overwrite=overwrite,
        console=console,
    )


command = as_command(fewshot, FewShotSettings)
