"""``l2l-evograd noisy-labels``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from l2l_evograd.experiments.command import run_experiment
from l2l_evograd.experiments.noisy_labels.settings import NoisyLabelSettings
from l2l_evograd.experiments.options import NotAnOption, OutFolder, as_command
from l2l_evograd.experiments.output import printing


@printing("noisy-labels")
def noisy_labels(
    given: Mapping[str, Any],
    *,
    out: OutFolder = Path("runs/noisy-labels"),
    resume: bool = False,
    overwrite: bool = False,
    console: Annotated[Console | None, NotAnOption] = None,
) -> list[dict[str, Any]]:
    """Train on wrong labels, with sample weights learned from a small clean set.

    The command compares training without weights, controls that weight samples without
    learning (random weights, or a weight net that keeps its initial values), and
    weights that are learned: one for each sample of a batch, or by a Meta-Weight-Net.
    They are learned through the exact hypergradient, the paper's Algorithm 1, EvoGrad
    with populations of several sizes, or a guided finite difference.

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
    from l2l_evograd.experiments.noisy_labels.experiment import NoisyLabelExperiment

    return run_experiment(
        NoisyLabelExperiment,
        NoisyLabelSettings,
        given,
        out=out,
        resume=resume,
        overwrite=overwrite,
        console=console,
    )


command = as_command(noisy_labels, NoisyLabelSettings)
