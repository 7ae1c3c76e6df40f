"""The folder of a run, with the rules of the cross-domain command's."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l2l_evograd.fewshot.results import SETTINGS, check_out, clear, write_json

ANGLES = "angle.png"
ESTIMATES = "estimates.png"
TRAJECTORIES = "trajectories.png"


def start(out: Path, settings: Mapping[str, Any], overwrite: bool) -> None:
    """Make the folder of a new run and write its settings.

    Args:
        out: the folder.
        settings: as JSON knows them.
        overwrite: remove the run that is there.

    Raises:
        ValueError, PermissionError: if it holds a run and ``overwrite`` is False, is
            no folder, or cannot be written.
    """
    check_new(out, overwrite)
    if (out / SETTINGS).exists():
        for name in (ANGLES, ESTIMATES, TRAJECTORIES):
            (out / name).unlink(missing_ok=True)
        clear(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / SETTINGS, settings)
    except OSError as error:
        raise PermissionError(
            f"cannot write to {out} ({error.strerror}); choose another folder with "
            f"--out"
        ) from error


def check_new(out: Path, overwrite: bool) -> None:
    """Refuse a folder that no new run can be written to; see :func:`start`."""
    if (out / SETTINGS).exists() and not overwrite:
        raise ValueError(
            f"{out} holds a run already; replace it (--overwrite) or choose another "
            f"folder (--out)"
        )
    check_out(out, resume=False, overwrite=overwrite)


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
