"""Folders as crossdomain leaves them, without any training."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from l2l_evograd.experiments.crossdomain.results import CrossDomainResults
from l2l_evograd.experiments.crossdomain.settings import CrossDomainSettings
from l2l_evograd.experiments.folder import make_folder
from l2l_evograd.experiments.sealed import previous, read_sealed, write_sealed

DOMAINS = ("cars", "cub", "mini")


def written_run(
    folder: Path, accuracies: Mapping[tuple[int, str], Sequence[float]], **changes: Any
) -> Path:
    """A run that has found these accuracies for each seed and method."""
    values: dict[str, Any] = {
        "seeds": 1,
        "unseen": "cub",
        "base": "mini",
        "methods": tuple(dict.fromkeys(method for _, method in accuracies)),
        "head": "relationnet",
        "backbone": "resnet10",
        "image_size": 224,
        "iterations": 40_000,
        "episodes": len(next(iter(accuracies.values()))),
        "device": "cpu",
        **changes,
    }
    settings = CrossDomainSettings(**values)
    make_folder(folder, settings.command, settings.to_dict())
    seen = [name for name in DOMAINS if name != settings.unseen]
    about = {"domains": {"unseen": settings.unseen, "base": "mini", "seen": seen}}
    results = CrossDomainResults(folder, settings, about)
    for (seed, method), found in accuracies.items():
        results.add(
            {
                "seed": seed,
                "method": method,
                "accuracy": {"mean": sum(found) / len(found)},
                "accuracies": list(found),
                "seconds_per_iteration": 0.25 * (seed + 1),
                "peak_memory_bytes": (seed + 1) * 10**9,
            }
        )
    return folder


def edit(path: Path, **changes: Any) -> None:
    """Change some of what a JSON file holds, as if it had been written so."""
    write_sealed(path, {**read_sealed(path), **changes})
    previous(path).unlink()


def summary(folder: Path) -> dict[str, dict[str, Any]]:
    """The summary as results.json has it, by method."""
    rows = json.loads((folder / "results.json").read_text())["summary"]
    return {row["method"]: row for row in rows}
