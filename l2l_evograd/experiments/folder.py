"""The folder of a run and the names of its files."""

import importlib.metadata
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import l2l_evograd
from l2l_evograd.checks import InputError
from l2l_evograd.experiments.environment import version_of
from l2l_evograd.experiments.paths import folder_to_write
from l2l_evograd.experiments.sealed import (
    exists,
    last_good,
    previous,
    read_sealed,
    remove,
    write_sealed,
)

# Counts the changes of what settings, results and checkpoints look like. Another
# version of them cannot be resumed.
FORMAT = 1

SETTINGS = "settings.json"
RESULTS = "results.json"
BEST = "best.json"
CHECKPOINTS = "checkpoints"
LOGS = "logs"
SEARCHES = "searches"

ACCURACY = "accuracy.png"
ADAPTATION = "adaptation.png"
ANGLES = "angle.png"
EPISODES = "episodes.png"
ESTIMATES = "estimates.png"
FEATURES = "features.png"
SAMPLES = "samples.png"
SCHEDULES = "schedules.png"
SEARCH = "search.png"
STRENGTHS = "strengths.png"
TRAINING = "training.png"
TRAJECTORIES = "trajectories.png"
WEIGHTS = "weights.png"

# Every picture that a run of any experiment writes. A run that replaces another run
# removes all of them.
PICTURES = (
    *(ACCURACY, ADAPTATION, ANGLES, EPISODES, ESTIMATES, FEATURES),
    *(SAMPLES, SCHEDULES, SEARCH, STRENGTHS, TRAINING, TRAJECTORIES, WEIGHTS),
)


def check_out(
    out: Path, *, resume: bool = False, overwrite: bool = False, resumable: bool = True
) -> None:
    """Refuse a folder that cannot be written to, or that contains another run.

    Args:
        out: the folder.
        resume: whether to resume the run in the folder.
        overwrite: whether to replace the run in the folder.
        resumable: whether runs of this command can be resumed.

    Raises:
        InputError: if ``out`` is a file or is read-only, if there is no run to resume,
            or if there is a run that is neither resumed nor replaced.
    """
    folder_to_write(out)
    has_run = exists(out / SETTINGS)
    if resume and not has_run:
        raise InputError(
            f"there is no run to resume: {out / SETTINGS} does not exist; leave "
            f"--resume out, or name the folder of the run with --out"
        )
    if has_run and not resume and not overwrite:
        go_on = "resume it (--resume), " if resumable else ""
        raise InputError(
            f"{out} already contains a run; {go_on}replace it (--overwrite) or choose "
            f"another folder (--out)"
        )
    written = (RESULTS, *PICTURES, CHECKPOINTS, LOGS)
    in_the_way = [name for name in written if (out / name).exists()]
    if in_the_way and not has_run:
        raise InputError(
            f"{out} contains {', '.join(in_the_way)}, but no {SETTINGS} that shows "
            f"whether a run wrote them; choose another folder (--out) or move them"
        )


def make_folder(
    out: Path, command: str, settings: Mapping[str, Any], *, resume: bool = False
) -> None:
    """Make the folder of a run and write its settings.

    Args:
        out: the folder.
        command: name of the command on the command line.
        settings: settings of the run, as JSON stores them.
        resume: keep the files of the run in the folder; otherwise they are removed.

    Raises:
        OSError: if the operating system does not allow it, for any reason.
    """
    path = out / SETTINGS
    content = {"format": FORMAT, "command": command, **settings}
    if not resume:
        _clear(out)
    elif path.exists() and read_sealed(path) == content:
        return
    out.mkdir(parents=True, exist_ok=True)
    for _ in range(2):  # so that the generation before is as good
        write_sealed(path, content)


def read_settings(out: Path) -> tuple[str, dict[str, Any]]:
    """Return the command and the settings of the run in a folder.

    Raises:
        InputError: if they are damaged, or were written by another version.
    """
    content, path, _ = last_good(out / SETTINGS, read_sealed)
    check_format(content, path)
    del content["format"]
    return str(content.pop("command", "")), content


def check_one_run(out: Path, may_change: Sequence[str]) -> None:
    """Refuse settings of which the two generations are of different runs.

    Args:
        out: folder of the run.
        may_change: names of settings in which they may differ.

    Raises:
        InputError: if somebody has put the settings of another run there.
    """
    path = out / SETTINGS
    if not (path.exists() and previous(path).exists()):
        return
    try:
        both = read_sealed(path), read_sealed(previous(path))
    except InputError:  # one is damaged, and the other one counts
        return
    new, old = ({k: v for k, v in one.items() if k not in may_change} for one in both)
    if new != old:
        names = [name for name in {**new, **old} if new.get(name) != old.get(name)]
        raise InputError(
            f"{path} and {previous(path).name} are of different runs, which differ in "
            f"{', '.join(names)}; remove the one that does not belong here"
        )


def check_format(content: Mapping[str, Any], path: Path) -> None:
    """Refuse the content of a file that another version wrote.

    Raises:
        InputError: for another format.
    """
    found = content.get("format")
    if found != FORMAT:
        raise InputError(
            f"expected {path} to have format {FORMAT}, got {found!r}: another version "
            f"of l2l_evograd wrote it; start a new run in another folder"
        )


def _clear(out: Path) -> None:
    """Remove the files that a run wrote. The settings are removed last."""
    if not exists(out / SETTINGS):
        return
    for name in (CHECKPOINTS, LOGS):
        if (out / name).is_dir():
            shutil.rmtree(out / name)
    for name in (*PICTURES, BEST):
        (out / name).unlink(missing_ok=True)
    for name in (RESULTS, SETTINGS):
        remove(out / name)


def versions() -> dict[str, str]:
    """Return the versions of all software that results may depend on."""
    names = ("torch", "learn2learn", "pytorch-lightning", *_SEARCH)
    found = {"python": platform.python_version()}
    for name in names:
        version = version_of(name)
        if version is not None:
            found[name] = version
        elif name not in _SEARCH:
            raise importlib.metadata.PackageNotFoundError(name)
    return {**found, "l2l_evograd": l2l_evograd.__version__}


def changed(
    then: Mapping[str, Any], now: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Return what has another version now: its name, and the two versions."""
    return [
        (name, then.get(name, "missing"), now[name])
        for name in now
        if then.get(name) != now[name]
    ]


# Those of the extra ``search``, which need not be installed.
_SEARCH = ("dehb", "ConfigSpace", "optuna")
