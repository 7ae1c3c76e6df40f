"""``l2l-evograd rerun``."""

import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from rich.console import Console

from l2l_evograd.checks import InputError
from l2l_evograd.data.folders import given_path
from l2l_evograd.experiments.command import run_experiment
from l2l_evograd.experiments.experiment import Experiment, say
from l2l_evograd.experiments.folder import RESULTS, changed, check_format, versions
from l2l_evograd.experiments.options import GivenPath, NotAnOption, OutFolder
from l2l_evograd.experiments.output import OutcomeError, printing
from l2l_evograd.experiments.results import check_entry
from l2l_evograd.experiments.sealed import read_sealed
from l2l_evograd.experiments.settings import RunSettings
from l2l_evograd.experiments.threads import threads_of_each
from l2l_evograd.experiments.values import shown

_IN = "l2l_evograd.experiments"

# The classes of settings and experiment of each command, which are imported when they
# are needed.
_CLASSES = {
    "crossdomain": ("crossdomain", "CrossDomain"),
    "fewshot": ("fewshot", "FewShot"),
    "noisy-labels": ("noisy_labels", "NoisyLabel"),
    "rotation": ("rotation", "Rotation"),
    "schedules": ("schedules", "Schedules"),
    "search": ("search", "Search"),
}

# Parts of the names of figures that no two runs have in common.
_COSTS = ("second", "memory")


class _Recorded(NamedTuple):
    """A run that is to be repeated.

    Attributes:
        command: name of the command.
        settings: its settings.
        fingerprint: that of its data.
        runs: its results, by seed and method.
        versions: versions of the software that it used, and the number of threads.
    """

    command: str
    settings: dict[str, Any]
    fingerprint: str | None
    runs: dict[tuple[int, str], dict[str, Any]]
    versions: Mapping[str, Any]


@printing("rerun", lambda given: _out(_path(given["result"]), given["out"]))
def rerun(
    result: GivenPath,
    *,
    out: OutFolder | None = None,
    resume: bool = False,
    overwrite: bool = False,
    console: Annotated[Console | None, NotAnOption] = None,
) -> list[dict[str, Any]]:
    """Repeat a run from its results.json, and compare all numbers.

    The run is repeated with the same settings in another folder. Every number of the
    results is compared but seconds and memory. The command ends with exit code 2 if one
    differs. Numbers agree bit for bit only with the same software, the same kind of
    processor and the same number of threads; what differs is said.

    Args:
        result: results.json of the run, or the folder that contains it.
        out: Folder for the new results. [default: the folder of the run with -rerun]
        resume: Resume the repetition in --out.
        overwrite: Replace the repetition in --out.
        console: console to print on; None: the standard output.

    Returns:
        One row for each seed and method: whether its numbers are the same, and where
        they differ first.

    Raises:
        InputError: for a file that is damaged or of another version, for data that
            have changed since, and if a number differs.
        KeyboardInterrupt: when interrupted; its text tells how to resume the run.
    """
    path = _path(result)
    recorded = _read(path)
    folder = path.resolve().parent
    out = _out(path, out)
    if out.resolve() == folder:
        raise InputError(f"expected --out to be another folder than {folder}")
    name, prefix = _CLASSES[recorded.command]
    kind = pkgutil.resolve_name(f"{_IN}.{name}.settings:{prefix}Settings")
    made = pkgutil.resolve_name(f"{_IN}.{name}.experiment:{prefix}Experiment")

    def make(settings: Any, place: Path, shown: Console) -> Experiment[Any]:
        experiment: Experiment[Any] = made(settings, place, shown)
        if experiment.fingerprint != recorded.fingerprint:
            raise InputError(
                f"the data are not those of {path}: expected the fingerprint "
                f"{recorded.fingerprint}, got {experiment.fingerprint}"
            )
        return experiment

    given = {} if resume else _given(kind, recorded.settings)
    console = console or Console()
    threads = threads_of_each(kind.from_dict(recorded.settings).side_by_side)
    for line in _changed(recorded.versions, threads):
        say(console, line)
    run_experiment(
        make,
        kind,
        given,
        out=out,
        resume=resume,
        overwrite=overwrite,
        console=console,
    )
    return _compare(recorded, _read(out / RESULTS), path, console)


def _path(result: Path) -> Path:
    """Return the path of the results that the user named."""
    result = given_path(result)
    return result / RESULTS if result.is_dir() else result


def _out(path: Path, out: Path | None) -> Path:
    """Return the folder for the new results."""
    folder = path.resolve().parent
    return folder.with_name(f"{folder.name}-rerun") if out is None else out


def _read(path: Path) -> _Recorded:
    content = read_sealed(path)
    check_format(content, path)
    command, settings, runs = (
        content.get(name) for name in ("command", "settings", "runs")
    )
    if command not in _CLASSES or not isinstance(settings, dict):
        raise InputError(
            f"expected {path} to contain results of {', '.join(_CLASSES)}, got those "
            f"of {command}"
        )
    if not isinstance(runs, list) or not runs:
        raise InputError(f"{path} has no results that could be compared")
    for number, run in enumerate(runs, start=1):
        check_entry(run, f"entry {number} of {path}")
    about = content.get("search" if command == "search" else "data")
    return _Recorded(
        command,
        settings,
        about.get("fingerprint") if isinstance(about, dict) else None,
        {(run["seed"], run["method"]): run for run in runs},
        {**content.get("versions", {}), "threads": content.get("threads")},
    )


def _given(kind: type[RunSettings], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings from JSON as an experiment takes them."""
    read = kind.from_dict(settings)
    return {name: getattr(read, name) for name in settings}


def _changed(then: Mapping[str, Any], threads: int) -> Iterator[str]:
    """Yield a line for each library that has another version now."""
    now = {**versions(), "threads": threads}
    for name, before, after in changed(then, now):
        yield f"{name} was {before}, and is {after} now"


def _compare(
    recorded: _Recorded, repeated: _Recorded, path: Path, console: Console
) -> list[dict[str, Any]]:
    """Say which results agree, and return a row for each.

    Raises:
        OutcomeError: if one does not.
    """
    found = {
        key: difference(run, repeated.runs.get(key))
        for key, run in recorded.runs.items()
    }
    for (seed, method), where in found.items():
        say(console, f"seed {seed}, {method}: {where or 'the same numbers'}")
    rows = [
        {"seed": seed, "method": method, "same": not where, "difference": where or None}
        for (seed, method), where in found.items()
    ]
    different = [where for where in found.values() if where]
    if different:
        raise OutcomeError(
            f"{len(different)} of {len(found)} results of {path} came out otherwise, "
            f"the first {different[0]}; look for other versions, threads or devices",
            rows,
        )
    say(console, f"all {len(found)} results of {path} came out the same, bit for bit")
    return rows


def difference(one: Any, other: Any, place: str = "") -> str:
    """Return where results differ first, and how; "" if they are the same.

    Seconds and memory are left out.
    """
    if isinstance(one, dict) and isinstance(other, dict):
        names = [n for n in {**one, **other} if not any(c in n for c in _COSTS)]
        pairs = [(f"{place} {n}".strip(), one.get(n), other.get(n)) for n in names]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [
            (f"{place}[{n}]", a, b)
            for n, (a, b) in enumerate(zip(one, other, strict=True))
        ]
    else:
        return "" if one == other else f"{place}: {shown(one)} and now {shown(other)}"
    return next((w for p, a, b in pairs if (w := difference(a, b, p))), "")
