"""``l2l-evograd search``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.command import run_experiment
from l2l_evograd.experiments.folder import SETTINGS
from l2l_evograd.experiments.options import (
    GivenPath,
    NotAnOption,
    OutFolder,
    as_command,
)
from l2l_evograd.experiments.output import printing
from l2l_evograd.experiments.paths import folder_to_write
from l2l_evograd.experiments.sealed import exists
from l2l_evograd.experiments.search.searched import Searched, searched_command
from l2l_evograd.experiments.search.settings import SearchSettings
from l2l_evograd.experiments.search.space import (
    parse_assignments,
    parse_range,
    range_text,
    split_assignment,
)
from l2l_evograd.experiments.settings_file import override, read_settings
from l2l_evograd.experiments.values import cut


@printing("search", lambda given: _folder(given["experiment"], given["out"]))
def search(
    given: Mapping[str, Any],
    experiment: str | None = None,
    *,
    space: list[str] | None = None,
    fixed: Annotated[list[str] | None, Parameter(name="--set")] = None,
    config: GivenPath | None = None,
    out: OutFolder | None = None,
    resume: bool = False,
    overwrite: bool = False,
    console: Annotated[Console | None, NotAnOption] = None,
) -> list[dict[str, Any]]:
    """Search the settings of another command by DEHB, random search or TPE.

    Many settings are tried in short trainings, and the best in longer ones. The search
    sees the validation loss of one method of the command, never the test. The found
    settings are trained anew on fresh seeds, beside the command's default settings. The
    best are written to best.json, for the command's option --config.

    Args:
        given: the settings that the user gave, by name.
        experiment: Command whose settings are searched: crossdomain, fewshot,
            noisy-labels or rotation.
        space: A setting that is searched, NAME=LOW..HIGH, NAME=LOW..HIGH:log or
            NAME=A,B,C; the option may be repeated. [default: the usual ones of the
            command and method]
        fixed: Another setting of the command, NAME=VALUE; the option may be repeated.
            methods=NAME chooses the method that is trained.
        config: JSON, YAML or TOML file with such settings, as for the command itself.
            --set overrides them.
        out: Folder for results. [default: runs/search-COMMAND]
        resume: Continue the search in --out.
        overwrite: Replace the search in --out.
        console: console to print on; None: the standard output.

    Returns:
        The summary: one row for the default settings, and one for each search method.

    Raises:
        InputError: for bad input, before anything is trained or written.
        KeyboardInterrupt: when interrupted; its text tells how to resume the search.
    """
    from l2l_evograd.experiments.search.experiment import SearchExperiment

    own = dict(given)
    if experiment is not None:
        own["experiment"] = experiment
    name = own.get("experiment")
    out = folder_to_write(_folder(name, out))
    if name is None and resume and exists(out / SETTINGS):
        name = SearchSettings.from_file(out).experiment
    searched = searched_command(name)
    if space:
        own["space"] = _space(searched, space)
    if fixed or config is not None:
        own["fixed"] = _fixed(searched, fixed or [], config)
    return run_experiment(
        SearchExperiment,
        SearchSettings,
        own,
        out=out,
        resume=resume,
        overwrite=overwrite,
        console=console,
    )


def _folder(name: str | None, out: Path | None) -> Path:
    """Return the folder for the results of a search of a command's settings."""
    if out is not None:
        return out
    return Path("runs") / f"search-{searched_command(name).settings.command}"


def _space(searched: Searched, texts: list[str]) -> dict[str, str]:
    """Return the space as the settings of the search store it."""
    form = "NAME=LOW..HIGH, NAME=LOW..HIGH:log or NAME=A,B,C"
    found: dict[str, str] = {}
    for text in texts:
        name, rest = split_assignment("--space", text, form)
        if name in found:
            raise InputError(
                f"expected --space once for {name}, got it again: {cut(text)}"
            )
        found[name] = range_text(parse_range(searched.settings, name, rest))
    return found


def _fixed(searched: Searched, texts: list[str], file: Path | None) -> dict[str, Any]:
    """Return the fixed settings as JSON stores them."""
    kind = searched.settings
    own = parse_assignments(kind, texts)
    wrong = [name for name in ("seed", "seeds") if name in own]
    if wrong:
        raise InputError(
            f"a search sets {wrong[0]} itself: use --{wrong[0]} for the search's, and "
            f"leave it out of --set"
        )
    found = own if file is None else override(kind, read_settings(kind, file), own)
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in found.items()
    }


command = as_command(search, SearchSettings)
