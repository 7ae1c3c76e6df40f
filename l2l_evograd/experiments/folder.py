"""The folder of a run and its files. Each file is written whole or not at all.

A file is written under another name and then renamed. A process that is killed
therefore leaves either the old file or the new one.
"""

import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import l2l_evograd
from l2l_evograd.checks import InputError

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


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file, and move it to ``path`` when it is complete."""
    unfinished = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    try:
        write(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step, and wait until it is on the disk."""

    def write(place: Path) -> None:
        with place.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    write_whole(path, write)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file in one step."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_object(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file contains.

    Raises:
        InputError: if the file is not JSON, or does not contain an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} is not JSON: line {error.lineno}, {error.msg}"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not JSON: it is not text in UTF-8") from error
    if not isinstance(content, dict):
        raise InputError(
            f"expected {path} to contain an object, got a {type(content).__name__}"
        )
    return content


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
    check_writable(out)
    has_run = (out / SETTINGS).exists()
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


def check_writable(out: Path, option: str = "--out") -> None:
    """Refuse a folder that cannot be made or written to.

    Args:
        out: the folder.
        option: command-line option that names the folder.

    Raises:
        InputError: if the folder, or an existing folder above it, is a file or is
            read-only.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"expected {option} to be a folder, but {out} is a file")
    existing = out
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(
            f"cannot make the folder {out}: {existing} is a file, not a folder; choose "
            f"another folder with {option}"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(
            f"cannot write to {existing}; choose another folder with {option}"
        )


def make_folder(
    out: Path, settings: Mapping[str, Any], *, resume: bool = False
) -> None:
    """Make the folder of a run and write its settings.

    Args:
        out: the folder.
        settings: settings of the run, as JSON stores them.
        resume: keep the files of the run in the folder; otherwise they are removed.

    Raises:
        InputError: if the operating system does not allow it, for any reason.
    """
    if not resume:
        _clear(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / SETTINGS, settings)
    except OSError as error:
        raise InputError(
            f"cannot write to {out} ({error.strerror}); choose another folder with "
            f"--out"
        ) from error


def _clear(out: Path) -> None:
    """Remove the files that a run wrote. The settings are removed last."""
    if not (out / SETTINGS).exists():
        return
    for name in (CHECKPOINTS, LOGS):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in (RESULTS, *PICTURES, SETTINGS):
        (out / name).unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """Return the versions of all software that results may depend on."""
    names = ("torch", "learn2learn", "pytorch-lightning", *_SEARCH)
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name not in _SEARCH:
                raise
    return {**found, "l2l_evograd": l2l_evograd.__version__}


# Those of the extra ``search``, which need not be installed.
_SEARCH = ("dehb", "ConfigSpace", "optuna")
