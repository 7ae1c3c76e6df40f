"""Runs of ``l2l-evograd crossdomain``, read from their folders and set side by side."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l2l_evograd.fewshot.methods import METHODS
from l2l_evograd.fewshot.results import Results
from l2l_evograd.fewshot.settings import CrossDomainSettings
from l2l_evograd.runs.folder import RESULTS, SETTINGS, read_object

# What a comparison is named by.
KEY = ("ways", "shots", "head", "backbone", "image_size", "iterations")

# Its columns, its rows, and what no figure depends on. All else must agree.
_FREE = (
    *("unseen", "methods", "seed", "seeds", "save_every"),
    *CrossDomainSettings.free,
)

# What a run could be made with need not be here to read about it.
_ANYWHERE = {"device": "cpu", "devices": 1, "nodes": 1}

# A setting that tells the runs of another command.
_OTHER_COMMANDS = {
    "noise_rate": "noisy-labels",
    "candidates": "rotation",
    "trials": "illustrate",
}


@dataclass(frozen=True)
class GatheredRun:
    """A run as its folder has it, finished or not.

    Attributes:
        folder: as it was named.
        settings: of the run, but on one device, the CPU.
        written: the settings as they were written.
        domains: all of them, seen and unseen.
        results: what there is of it.
    """

    folder: Path
    settings: CrossDomainSettings
    written: Mapping[str, Any]
    domains: tuple[str, ...]
    results: Results

    @property
    def device(self) -> str:
        """What it ran on, without a number."""
        return str(self.written["device"]).partition(":")[0]

    @property
    def missing(self) -> list[tuple[int, str]]:
        """The seeds and methods that are not finished."""
        return [
            (seed, method)
            for seed in self.settings.all_seeds
            for method in self.settings.methods
            if not self.results.has(seed, method)
        ]

    def identity(self) -> dict[str, Any]:
        """Return what a run must share with another one to be compared with it."""
        kept = {n: value for n, value in self.written.items() if n not in _FREE}
        return {**kept, "device": self.device, "domains": ", ".join(self.domains)}


@dataclass(frozen=True)
class Comparison:
    """Runs that differ in unseen domain, methods and seeds alone.

    Attributes:
        runs: in the order they were named.
        differing: what sets it apart from others with the same :data:`KEY`.
        rows: unseen domain -> method -> the row of
            :meth:`~l2l_evograd.fewshot.results.Results.summary` over all runs; domains
            in alphabetical order, methods as in
            :data:`~l2l_evograd.fewshot.methods.METHODS`.
    """

    runs: tuple[GatheredRun, ...]
    differing: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]]

    @property
    def settings(self) -> CrossDomainSettings:
        """What all share, and the unseen domain, methods and seeds of the first."""
        return self.runs[0].settings

    @property
    def methods(self) -> list[str]:
        """The methods that have a figure."""
        return [m for m in METHODS if any(m in rows for rows in self.rows.values())]

    @property
    def complete(self) -> bool:
        """Whether every domain but the one of the pre-training was left out once."""
        return set(self.runs[0].domains) <= {*self.rows, self.settings.base}


def gather(folders: Iterable[Path]) -> list[GatheredRun]:
    """Return the runs in ``folders``, each once.

    Args:
        folders: of runs; or of folders of runs, as crossdomain makes one for several
            unseen domains, of which those are taken that have results.

    Raises:
        ValueError, FileNotFoundError: as :func:`read_run`.
    """
    different: dict[Path, Path] = {}
    for folder in folders:
        for run in _runs_below(folder.expanduser()):
            different.setdefault(run.resolve(), run)
    return [read_run(run) for run in different.values()]


def read_run(folder: Path) -> GatheredRun:
    """Return the run in a folder.

    Raises:
        FileNotFoundError: if there is none, or none of its methods is finished.
        ValueError: if it is of another command or another version, or damaged.
    """
    for name, lack in ((SETTINGS, "no run"), (RESULTS, "no results yet")):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} holds {lack}: {folder / name} does not exist; name folders "
                f"that crossdomain has written to (its --out)"
            )
    written = read_object(folder / SETTINGS)
    settings = _settings(folder, written)
    content = read_object(folder / RESULTS)
    _check_results(folder / RESULTS, content, settings)
    return GatheredRun(
        folder,
        settings,
        written,
        tuple(sorted({*content["domains"]["seen"], settings.unseen})),
        Results(folder, settings, {}),
    )


def compare(runs: Sequence[GatheredRun]) -> list[Comparison]:
    """Return the runs, those together that can be compared.

    Args:
        runs: from :func:`gather`.

    Returns:
        Comparisons with the same :data:`KEY` one after the other, else in the order of
        their first runs.

    Raises:
        ValueError: if a seed of a method comes twice with the same settings.
    """
    by_key: dict[tuple[Any, ...], dict[str, list[GatheredRun]]] = {}
    for run in runs:
        key = tuple(getattr(run.settings, name) for name in KEY)
        identity = json.dumps(run.identity(), sort_keys=True)
        by_key.setdefault(key, {}).setdefault(identity, []).append(run)
    comparisons = []
    for groups in by_key.values():
        identities = [group[0].identity() for group in groups.values()]
        names = [
            name
            for name in identities[0]
            if any(one[name] != identities[0][name] for one in identities)
        ]
        for group, own in zip(groups.values(), identities, strict=True):
            differing = {name: own[name] for name in names}
            comparisons.append(Comparison(tuple(group), differing, _rows(group)))
    return comparisons


def _runs_below(folder: Path) -> list[Path]:
    """Return the folder itself if it is a run's, else those in it that are."""
    if (folder / SETTINGS).exists():
        return [folder]
    inside = sorted(path.parent for path in folder.glob(f"*/{RESULTS}"))
    return [run for run in inside if (run / SETTINGS).exists()] or [folder]


def _settings(folder: Path, written: Mapping[str, Any]) -> CrossDomainSettings:
    """Return a run's settings, on whatever machines it was made."""
    if "unseen" not in written:
        for name, command in _OTHER_COMMANDS.items():
            if name in written:
                raise ValueError(
                    f"{folder} holds a run of {command}; a report gathers runs of "
                    f"crossdomain, leave it out"
                )
    try:
        return CrossDomainSettings.from_dict(
            {name: _ANYWHERE.get(name, written[name]) for name in written}
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"cannot read {folder / SETTINGS}: {error}") from error


def _check_results(
    path: Path, content: Mapping[str, Any], settings: CrossDomainSettings
) -> None:
    """Refuse results that crossdomain, as it is now, has not written."""
    domains, runs = content.get("domains"), content.get("runs")
    if not (isinstance(domains, dict) and _is_list_of(str, domains.get("seen"))):
        wrong = "the seen domains are not"
    elif not (isinstance(runs, list) and runs):
        wrong = "no figures are"
    else:
        bad = [number for number, run in enumerate(runs) if not _is_run(run, settings)]
        if not bad:
            return
        wrong = f"those of entry {bad[0]} of its runs are not"
    raise ValueError(
        f"expected {path} to hold the figures that this version of crossdomain writes, "
        f"but {wrong}; make the run anew, or leave it out"
    )


def _is_run(run: object, settings: CrossDomainSettings) -> bool:
    """Say whether an entry has the figures of a method of these settings."""
    if not isinstance(run, dict):
        return False
    accuracy, accuracies = run.get("accuracy"), run.get("accuracies")
    return (
        isinstance(run.get("seed"), int)
        and run.get("method") in settings.methods
        and isinstance(accuracy, dict)
        and isinstance(accuracy.get("mean"), int | float)
        and _is_list_of((int, float), accuracies)
        and len(accuracies or ()) == settings.episodes
        and isinstance(run.get("seconds_per_iteration"), int | float)
        and isinstance(run.get("peak_memory_bytes"), int | float)
    )


def _is_list_of(kind: type | tuple[type, ...], value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, kind) for one in value)


def _rows(runs: Sequence[GatheredRun]) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """Return the summaries of comparable runs: unseen domain -> method -> row."""
    _check_different(runs)
    by_domain: dict[str, list[GatheredRun]] = {}
    for run in runs:
        by_domain.setdefault(run.settings.unseen, []).append(run)
    rows = {}
    for domain, group in sorted(by_domain.items()):
        asked = {method for run in group for method in run.settings.methods}
        methods = tuple(method for method in METHODS if method in asked)
        together = Results(
            group[0].folder,
            dataclasses.replace(group[0].settings, methods=methods),
            {},
        )
        together.runs = [figures for run in group for figures in run.results.runs]
        rows[domain] = {row["method"]: row for row in together.summary()}
    return rows


def _check_different(runs: Sequence[GatheredRun]) -> None:
    """Refuse comparable runs of which two have a figure of the same seed."""
    found: dict[tuple[str, int, str], Path] = {}
    for run in runs:
        for figures in run.results.runs:
            which = (run.settings.unseen, figures["seed"], figures["method"])
            if which in found:
                raise ValueError(
                    f"{found[which]} and {run.folder} hold the same: {which[2]} on "
                    f"{which[0]!r} with seed {which[1]} and the same settings; leave "
                    f"one of them out"
                )
            found[which] = run.folder
