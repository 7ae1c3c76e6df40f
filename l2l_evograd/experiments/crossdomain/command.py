"""``l2l-evograd crossdomain``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.command import run_experiment, settings_to_run
from l2l_evograd.experiments.crossdomain.presets import with_preset
from l2l_evograd.experiments.crossdomain.settings import CrossDomainSettings
from l2l_evograd.experiments.experiment import say
from l2l_evograd.experiments.folder import SETTINGS
from l2l_evograd.experiments.options import NotAnOption, OutFolder, as_command
from l2l_evograd.experiments.output import printing
from l2l_evograd.experiments.paths import folder_to_write
from l2l_evograd.experiments.sealed import exists
from l2l_evograd.experiments.values import cut, split_names

if TYPE_CHECKING:
    from l2l_evograd.experiments.crossdomain.experiment import CrossDomainExperiment


@printing("crossdomain")
def crossdomain(
    given: Mapping[str, Any],
    *,
    preset: str | None = None,
    out: OutFolder = Path("runs/crossdomain"),
    resume: bool = False,
    overwrite: bool = False,
    console: Annotated[Console | None, NotAnOption] = None,
) -> list[dict[str, Any]]:
    """Few-shot learning across domains: train on all but one, test on that one.

    The command compares networks without feature-wise transformation layers, with
    fixed layers (ft), and with learned layers. The layers are learned through the exact
    hypergradient, the paper's Algorithm 1, or a guided finite difference.

    Args:
        given: the settings that the user gave, by name.
        preset: Published settings: paper-1shot or paper-5shot. Other options override
            them.
        out: Folder for results, checkpoints and logs. With several unseen domains, it
            contains one folder for each of them.
        resume: Resume the run in --out.
        overwrite: Replace the run in --out.
        console: console to print on; None: the standard output.

    Returns:
        The summaries: one row for each unseen domain and method.

    Raises:
        InputError: for bad input, before anything is trained or written.
        KeyboardInterrupt: when interrupted; its text tells how to resume the run.
    """
    from l2l_evograd.experiments.crossdomain.experiment import CrossDomainExperiment

    out = folder_to_write(out)
    given = with_preset(given, preset, resume=resume)
    names = split_names(given.get("unseen", ""))
    runs = [(given, out, resume)]
    if len(names) > 1:
        for name in names:
            if name == ".." or Path(name).name != name:
                raise InputError(f"expected --unseen to name domains, got {cut(name)}")
            folder_to_write(out / name, "--unseen")
        if len(set(names)) < len(names):
            raise InputError(
                f"expected each unseen domain once, got {', '.join(names)}; leave out "
                f"the repetition"
            )
        if resume and not any(_resumes(resume, out / name) for name in names):
            raise InputError(
                f"there is no run to resume: no folder of {', '.join(names)} in {out} "
                f"has a {SETTINGS}; leave out --resume, or --unseen for a single run"
            )
        runs = [
            ({**given, "unseen": name}, out / name, _resumes(resume, out / name))
            for name in names
        ]
        # All runs are checked before the first one trains for hours.
        for own, folder, resumes in runs:
            settings = settings_to_run(
                CrossDomainSettings,
                own,
                out=folder,
                resume=resumes,
                overwrite=overwrite,
            )
            CrossDomainExperiment(settings, folder, Console(quiet=True))
    rows: list[dict[str, Any]] = []
    made: list[CrossDomainExperiment] = []

    def make(
        settings: CrossDomainSettings, folder: Path, console: Console
    ) -> CrossDomainExperiment:
        others = [earlier.out for earlier in made]
        made.append(CrossDomainExperiment(settings, folder, console, others))
        return made[-1]

    for own, folder, resumes in runs:
        found = run_experiment(
            make,
            CrossDomainSettings,
            own,
            out=folder,
            resume=resumes,
            overwrite=overwrite,
            console=console,
        )
        rows += [{"unseen": made[-1].settings.unseen, **row} for row in found]
    if len(made) > 1:
        _conclude_all(made)
    return rows


def _conclude_all(experiments: Sequence["CrossDomainExperiment"]) -> None:
    """Print the accuracies on all unseen domains, and what their mean shows."""
    from l2l_evograd.experiments.crossdomain.report.conclusions import (
        averaged,
        comparisons,
        domains_table,
    )

    last = experiments[-1]
    runs = {each.settings.unseen: each.results().runs for each in experiments}
    last.console.print(domains_table(runs, last.settings.methods))
    say(last.console, f"Mean over {len(runs)} unseen domains:")
    for line in comparisons(averaged(runs), last.settings.methods):
        say(last.console, line)


def _resumes(resume: bool, out: Path) -> bool:
    return resume and exists(out / SETTINGS)


command = as_command(crossdomain, CrossDomainSettings)
