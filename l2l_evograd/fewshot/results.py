"""The folder of a run: its settings, its results, and files that are never half there.

A file is written beside its place and moved there in one stroke, so a process that is
killed leaves the old one or the new one.
"""

import importlib.metadata
import json
import math
import os
import platform
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import l2l_evograd
from l2l_evograd.fewshot.settings import CrossDomainSettings

SETTINGS = "settings.json"
RESULTS = "results.json"
ACCURACY = "accuracy.png"
EPISODES = "episodes.png"
CHECKPOINTS = "checkpoints"
LOGS = "logs"
FILES = (RESULTS, ACCURACY, EPISODES)
FOLDERS = (CHECKPOINTS, LOGS)


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


def check_out(out: Path, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that cannot be written, or holds another run.

    Raises:
        PermissionError: if it, or the folder that it would be made in, is read-only.
        FileNotFoundError: for a run to go on with that is not there.
        ValueError: if it is no folder, or holds a run that is neither to be gone on
            with nor to be replaced.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"expected --out to be a folder, but {out} is a file")
    existing = out
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise ValueError(f"cannot make the folder {out}: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(
            f"cannot write to {existing}; choose another folder with --out"
        )
    has_run = (out / SETTINGS).exists()
    if resume and not has_run:
        raise FileNotFoundError(
            f"nothing to go on with: {out / SETTINGS} does not exist; leave --resume "
            f"out, or name the folder of the run with --out"
        )
    if has_run and not resume and not overwrite:
        raise ValueError(
            f"{out} holds a run already; go on with it (--resume), replace it "
            f"(--overwrite) or choose another folder (--out)"
        )
    in_the_way = [name for name in (*FILES, *FOLDERS) if (out / name).exists()]
    if in_the_way and not has_run:
        raise ValueError(
            f"{out} holds {', '.join(in_the_way)}, but no {SETTINGS} to tell whether "
            f"a run wrote them; choose another folder (--out) or move them away"
        )


def clear(out: Path) -> None:
    """Remove what a run wrote to ``out``, its settings last."""
    if not (out / SETTINGS).exists():
        return
    for name in FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)
    for name in (*FILES, SETTINGS):
        (out / name).unlink(missing_ok=True)


def make_folder(out: Path, settings: CrossDomainSettings) -> None:
    """Make the folder of a run and write its settings.

    Raises:
        PermissionError: if the system does not let us, for whatever reason.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / SETTINGS, settings.to_dict())
    except OSError as error:
        raise PermissionError(
            f"cannot write to {out} ({error.strerror}); choose another folder with "
            f"--out"
        ) from error


def read_settings(out: Path) -> CrossDomainSettings:
    """Return the settings of the run in ``out``.

    Raises:
        ValueError: if the file is no JSON or of another version.
    """
    return CrossDomainSettings.from_dict(_read_json(out / SETTINGS))


class Results:
    """What a run has found so far, kept in ``results.json``.

    Args:
        out: folder of the run; results that are in it are read.
        settings: of the run.
        domains: the names of the unseen, the base and the seen domains.
    """

    def __init__(
        self,
        out: Path,
        settings: CrossDomainSettings,
        domains: Mapping[str, Any],
    ) -> None:
        self._path = out / RESULTS
        self._settings = settings
        self._domains = domains
        self.runs: list[dict[str, Any]] = []
        if self._path.exists():
            self.runs = list(_read_json(self._path)["runs"])

    def has(self, seed: int, method: str) -> bool:
        """Say whether the figures of a method are there."""
        return any(run["seed"] == seed and run["method"] == method for run in self.runs)

    def add(self, run: Mapping[str, Any]) -> None:
        """Add the figures of one method for one seed, and write the file."""
        self.runs.append(dict(run))
        self.write()

    def write(self) -> None:
        """Write the file in one stroke."""
        write_json(
            self._path,
            {
                "settings": self._settings.to_dict(),
                "versions": versions(),
                "domains": self._domains,
                "summary": self.summary(),
                "runs": self.runs,
            },
        )

    def summary(self) -> list[dict[str, Any]]:
        """Return one row for each method, over all its seeds.

        ``accuracy`` and ``interval`` are of all episodes of all seeds together;
        ``seed_mean`` and ``seed_sd`` of the seeds' means. ``gain`` is the difference
        to the first method, episode by episode; its interval is over all episodes, its
        ``gain_sd`` over the seeds' means.
        """
        rows = []
        first = self._settings.methods[0]
        reference = {r["seed"]: r for r in self.runs if r["method"] == first}
        for method in self._settings.methods:
            runs = [run for run in self.runs if run["method"] == method]
            if not runs:
                continue
            episodes = [value for run in runs for value in run["accuracies"]]
            means = [run["accuracy"]["mean"] for run in runs]
            by_seed = [
                _differences(run, reference[run["seed"]])
                for run in runs
                if method != first and run["seed"] in reference
            ]
            gains = [gain for differences in by_seed for gain in differences]
            rows.append(
                {
                    "method": method,
                    "seeds": len(runs),
                    "accuracy": fmean(episodes),
                    "interval": _interval(episodes),
                    "seed_mean": fmean(means),
                    "seed_sd": _sd(means),
                    "gain": fmean(gains) if gains else None,
                    "gain_interval": _interval(gains) if gains else None,
                    "gain_sd": _sd([fmean(d) for d in by_seed]) if gains else None,
                    "seconds_per_iteration": fmean(
                        [run["seconds_per_iteration"] for run in runs]
                    ),
                    "peak_memory_bytes": max(run["peak_memory_bytes"] for run in runs),
                }
            )
        return rows


def versions() -> dict[str, str]:
    """Return the versions of what a figure may depend on."""
    names = ("torch", "learn2learn", "pytorch-lightning")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
        "l2l_evograd": l2l_evograd.__version__,
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected {path} to hold an object")
    return content


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _differences(run: Mapping[str, Any], other: Mapping[str, Any]) -> list[float]:
    pairs = zip(run["accuracies"], other["accuracies"], strict=True)
    return [own - theirs for own, theirs in pairs]


def _sd(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _interval(values: Sequence[float]) -> float:
    return 1.96 * _sd(values) / math.sqrt(len(values))
