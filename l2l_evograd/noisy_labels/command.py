"""``l2l-evograd noisy-labels`` from its options to its report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from l2l_evograd.noisy_labels.data import read_source
from l2l_evograd.noisy_labels.experiment import Experiment
from l2l_evograd.noisy_labels.pictures import (
    draw_accuracy,
    draw_samples,
    draw_weights,
)
from l2l_evograd.noisy_labels.report import results_table
from l2l_evograd.noisy_labels.results import PICTURES, SAMPLES, WEIGHTS
from l2l_evograd.noisy_labels.settings import NoisyLabelSettings
from l2l_evograd.runs.command import interruptible, say, settings_to_run
from l2l_evograd.runs.folder import ACCURACY, RESULTS
from l2l_evograd.runs.processes import console_of, join, leads


def noisy_labels(
    options: Mapping[str, Any],
    *,
    given: Mapping[str, Any],
    out: Path,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> list[dict[str, Any]]:
    """Run the experiment and report on it.

    Args:
        options: a value for each of :class:`~.settings.NoisyLabelSettings`.
        given: those of them that were asked for; a run that goes on must agree.
        out: folder of the run.
        resume: go on with the run in ``out``, with its settings.
        overwrite: replace the run in ``out``.
        console: where to say what happens; None: the standard output.

    Returns:
        The summary: one row for each method.

    Raises:
        ValueError, TypeError, FileNotFoundError, PermissionError: for bad input,
            before anything is trained or written.
        KeyboardInterrupt: when interrupted, saying how to go on.
    """
    out = out.expanduser()
    settings = settings_to_run(
        NoisyLabelSettings,
        options,
        given,
        out=out,
        pictures=PICTURES,
        resume=resume,
        overwrite=overwrite,
    ).resolved()
    console = console_of(settings.devices, console)
    join(settings.devices, settings.device)
    with interruptible(out, settings.command):
        source = read_source(settings.data, settings.image_size, console)
        experiment = Experiment(settings, source, out, console)
        title = _announce(experiment)
        results = experiment.run(resume)
        split = experiment.split(settings.seed)
        per_epoch = max(1, len(split.train) // settings.batch_size)
        if leads(settings.devices):
            draw_accuracy(results, per_epoch, title, out / ACCURACY)
            draw_weights(results, out / WEIGHTS)
            draw_samples(results, out / SAMPLES)
    rows = results.summary()
    console.print(results_table(rows, f"Test accuracy, {title}"))
    say(console, f"{out / RESULTS}, {', '.join(PICTURES)}")
    return rows


def _announce(experiment: Experiment) -> str:
    """Say what will be done, and return what the figures are of."""
    settings, source = experiment.settings, experiment.source
    split = experiment.split(settings.seed)
    title = f"{Path(source.name).name}, {settings.noise} {settings.noise_rate:.0%}"
    if settings.imbalance != 1:
        title += f", long tail {settings.imbalance:g}"
    width = "" if settings.width == 1 else f", width {settings.width}"
    length = (
        f"{settings.epochs} epochs"
        if settings.iterations is None
        else f"{settings.iterations} iterations"
    )
    tests = settings.test_images or len(source.test)
    for line in (
        f"Noisy labels, {source.name}, {len(source.classes)} classes: "
        f"{len(split.train)} training images, {int(split.corrupted.sum())} of them "
        f"with a wrong label ({settings.noise} {settings.noise_rate:.0%}), "
        f"{len(split.meta)} clean meta images, {tests} test images",
        f"{settings.network}{width}, {length} on {settings.device}; results in "
        f"{experiment.out}",
    ):
        say(experiment.console, line)
    return title
