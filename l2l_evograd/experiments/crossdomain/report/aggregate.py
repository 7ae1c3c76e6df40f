"""Runs of ``l2l-evograd crossdomain``, read from their folders and compared."""

import copy
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.crossdomain.methods import METHODS
from l2l_evograd.experiments.crossdomain.results import CrossDomainResults
from l2l_evograd.experiments.crossdomain.settings import CrossDomainSettings
from l2l_evograd.experiments.folder import RESULTS, SETTINGS
from l2l_evograd.experiments.paths import expanded
from l2l_evograd.experiments.sealed import exists, last_good, read_sealed

# The settings that name a comparison.
KEY = ("ways", "shots", "head", "backbone", "image_size", "iterations")


@dataclass(frozen=True)
class GatheredRun:
    """A run that was read from its folder, finished or not.

    Attributes:
        folder: folder of the run, as the user named it.
        settings: settings of the run.
        domains: all domains, seen and unseen.
        results: results of the run so far.
    """

    folder: Path
    settings: CrossDomainSettings
    domains: tuple[str, ...]
    results: CrossDomainResults

    @property
    def device(self) -> str:
        """Type of the device that the run used, without a number."""
        return self.settings.device.partition(":")[0]

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
        """Return the values that runs must share to be compared."""
        shared = self.settings.identity()
        return {**shared, "device": self.device, "domains": ", ".join(self.domains)}


@dataclass(frozen=True)
class Comparison:
    """Runs that differ only in unseen domain, methods and seeds.

    Attributes:
        runs: the runs, in the order in which the user named them.
        differing: settings that distinguish this comparison from others with the same
            :data:`KEY`.
        rows: maps an unseen domain and a method to a row of
            :meth:`~.results.CrossDomainResults.summary` over all runs. Domains are in
            alphabetical order, methods in the order of :data:`~.methods.METHODS`.
    """

    runs: tuple[GatheredRun, ...]
    differing: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]]

    @property
    def settings(self) -> CrossDomainSettings:
        """Settings of the first run. Others may differ in unseen domain or seeds."""
        return self.runs[0].settings

    @property
    def methods(self) -> list[str]:
        """The methods that have results."""
        return [m for m in METHODS if any(m in rows for rows in self.rows.values())]

    @property
    def complete(self) -> bool:
        """Whether every domain except the base domain is the unseen domain of a run."""
        return set(self.runs[0].domains) <= {*self.rows, self.settings.base}


def gather(folders: Iterable[Path]) -> list[GatheredRun]:
    """Return the runs in ``folders``, each once.

    Args:
        folders: folders of runs, or folders that contain them, such as crossdomain
            makes for several unseen domains. From the latter, only runs with results
            are taken.

    Raises:
        InputError: as in :func:`read_run`.
    """
    different: dict[Path, Path] = {}
    for folder in folders:
        for run in _runs_below(expanded(folder, "folders")):
            different.setdefault(run.resolve(), run)
    return [read_run(run) for run in different.values()]


def read_run(folder: Path) -> GatheredRun:
    """Return the run in a folder.

    Raises:
        InputError: if the folder has no run, if no method of the run is finished, if
            another command or another version made the run, or if a file is damaged.
    """
    for name, lack in ((SETTINGS, "no run"), (RESULTS, "no results yet")):
        if not exists(folder / name):
            raise InputError(
                f"{folder} contains {lack}: {folder / name} does not exist; name "
                f"folders that crossdomain has written to (its --out)"
            )
    settings = CrossDomainSettings.from_file(folder)
    _, _, damage = last_good(folder / RESULTS, read_sealed)
    if damage:  # the state before it has fewer results
        raise InputError(
            f"{damage}; mend it with l2l-evograd crossdomain --resume, or leave "
            f"{folder} out"
        )
    results = CrossDomainResults(folder, settings, {})
    domains = results.top.get("domains")
    seen = domains.get("seen") if isinstance(domains, dict) else None
    if not (isinstance(seen, list) and all(isinstance(name, str) for name in seen)):
        raise InputError(
            f"expected the seen domains in {folder / RESULTS} to be a list of names, "
            f"got {seen}; repeat the run, or leave it out"
        )
    if not results.runs:
        raise InputError(f"{folder / RESULTS} has no results; leave {folder} out")
    return GatheredRun(
        folder, settings, tuple(sorted({*seen, settings.unseen})), results
    )


def compare(runs: Sequence[GatheredRun]) -> list[Comparison]:
    """Group the runs into comparisons.

    Args:
        runs: runs from :func:`gather`.

    Returns:
        The comparisons, in the order of their first runs. Comparisons with the same
        :data:`KEY` follow each other.

    Raises:
        InputError: if two runs have the same seed of a method with the same settings.
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
    """Return the folder itself if it is of a run, else the folders of runs in it."""
    if exists(folder / SETTINGS):
        return [folder]
    inside = sorted(path.parent for path in folder.glob(f"*/{RESULTS}"))
    return [run for run in inside if exists(run / SETTINGS)] or [folder]


def _rows(runs: Sequence[GatheredRun]) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """Return the rows of the summary of comparable runs, by domain and method."""
    _check_different(runs)
    by_domain: dict[str, list[GatheredRun]] = {}
    for run in runs:
        by_domain.setdefault(run.settings.unseen, []).append(run)
    rows = {}
    for domain, group in sorted(by_domain.items()):
        asked = {method for run in group for method in run.settings.methods}
        methods = tuple(method for method in METHODS if method in asked)
        together = copy.copy(group[0].results)
        together.settings = dataclasses.replace(group[0].settings, methods=methods)
        together.runs = [figures for run in group for figures in run.results.runs]
        rows[domain] = {row["method"]: row for row in together.summary()}
    return rows


def _check_different(runs: Sequence[GatheredRun]) -> None:
    """Refuse comparable runs if two have results for the same seed and method."""
    found: dict[tuple[str, int, str], Path] = {}
    for run in runs:
        for figures in run.results.runs:
            which = (run.settings.unseen, figures["seed"], figures["method"])
            if which in found:
                raise InputError(
                    f"{found[which]} and {run.folder} contain the same results: "
                    f"{which[2]} on {which[0]!r} with seed {which[1]} and the same "
                    f"settings; leave one of them out"
                )
            found[which] = run.folder
