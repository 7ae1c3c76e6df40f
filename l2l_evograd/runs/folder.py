"""The folder of a run: its settings, its results, and files that are never half there.

A file is written beside its place and moved there in one stroke, so a process that is
killed leaves the old one or the new one.
"""

import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import l2l_evograd

SETTINGS = "settings.json"
RESULTS = "results.json"
ACCURACY = "accuracy.png"
CHECKPOINTS = "checkpoints"
LOGS = "logs"


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a file and move it to ``path`` when it is whole."""
    unfinished = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    try:
        write(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` in one stroke."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_whole(path, lambda place: _write_text(place, text))


def read_object(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        ValueError: if it is no JSON, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected {path} to hold an object")
    return content


def check_out(
    out: Path,
    pictures: Sequence[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    resumable: bool = True,
) -> None:
    """Refuse a folder that cannot be written, or holds another run.

    Args:
        out: the folder.
        pictures: names of the files that this kind of run leaves besides its settings,
            results, checkpoints and logs.
        resume: whether to go on with the run that is there.
        overwrite: whether to replace it.
        resumable: whether runs of this kind can be gone on with.

    Raises:
        PermissionError: if it, or the folder that it would be made in, is read-only.
        FileNotFoundError: for a run to go on with that is not there.
        ValueError: if it is no folder, or holds a run that is neither to be gone on
            with nor to be replaced.
    """
    check_writable(out)
    has_run = (out / SETTINGS).exists()
    if resume and not has_run:
        raise FileNotFoundError(
            f"nothing to go on with: {out / SETTINGS} does not exist; leave --resume "
            f"out, or name the folder of the run with --out"
        )
    if has_run and not resume and not overwrite:
        go_on = "go on with it (--resume), " if resumable else ""
        raise ValueError(
            f"{out} holds a run already; {go_on}replace it (--overwrite) or choose "
            f"another folder (--out)"
        )
    written = (RESULTS, *pictures, CHECKPOINTS, LOGS)
    in_the_way = [name for name in written if (out / name).exists()]
    if in_the_way and not has_run:
        raise ValueError(
            f"{out} holds {', '.join(in_the_way)}, but no {SETTINGS} to tell whether "
            f"a run wrote them; choose another folder (--out) or move them away"
        )


def check_writable(out: Path) -> None:
    """Refuse a folder that cannot be made or written to.

    Raises:
        PermissionError: if it, or the folder that it would be made in, is read-only.
        ValueError: if it, or one above it, is a file.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"expected --out to be a folder, but {out} is a file")
    existing = out
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise ValueError(
            f"cannot make the folder {out}: expected what is above --out to be a "
            f"folder, but {existing} is a file"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(
            f"cannot write to {existing}; choose another folder with --out"
        )


def clear(out: Path, pictures: Sequence[str]) -> None:
    """Remove what a run wrote to ``out``, its settings last."""
    if not (out / SETTINGS).exists():
        return
    for name in (CHECKPOINTS, LOGS):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in (RESULTS, *pictures, SETTINGS):
        (out / name).unlink(missing_ok=True)


def make_folder(
    out: Path,
    settings: Mapping[str, Any],
    pictures: Sequence[str],
    *,
    resume: bool = False,
) -> None:
    """Make the folder of a run and write its settings.

    Args:
        out: the folder.
        settings: as JSON knows them.
        pictures: as in :func:`check_out`.
        resume: keep what the run that is there has done; else it is removed.

    Raises:
        PermissionError: if the system does not let us, for whatever reason.
    """
    if not resume:
        clear(out, pictures)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / SETTINGS, settings)
    except OSError as error:
        raise PermissionError(
            f"cannot write to {out} ({error.strerror}); choose another folder with "
            f"--out"
        ) from error


def versions() -> dict[str, str]:
    """Return the versions of what a figure may depend on."""
    names = ("torch", "learn2learn", "pytorch-lightning")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
        "l2l_evograd": l2l_evograd.__version__,
    }


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
