"""What a finished run shows and does not show: its last lines, and a mean over domains.

The figures come from the runs in ``results.json``: one entry for each seed and method.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from rich.table import Table

from l2l_evograd.experiments.crossdomain.methods import METHODS
from l2l_evograd.experiments.results import deviation
from l2l_evograd.experiments.verdicts import paired, sentence

FIXED = "ft"
_PARTS = (("scale γ", "gamma"), ("shift β", "beta"))

Runs = Sequence[Mapping[str, Any]]


def conclusions(runs: Runs, methods: Sequence[str]) -> list[str]:
    """Return one line for each comparison, and one for the λ of each learned method.

    Every method is compared with the first one, and learned noise with fixed noise
    (``ft``).

    Args:
        runs: results of each seed and method.
        methods: methods of the run, in their order.
    """
    return [*comparisons(runs, methods), *movements(runs, methods)]


def comparisons(runs: Runs, methods: Sequence[str]) -> list[str]:
    """Return one line for each pair of methods that have seeds in common.

    Args:
        runs: results of each seed and method.
        methods: methods of the run, in their order.
    """
    means = _means(runs)
    pairs = [(method, methods[0]) for method in methods[1:]]
    pairs += [
        (method, FIXED)
        for method in methods
        if METHODS[method].learned
        and FIXED in methods
        and methods[0] != FIXED
        and (FIXED, method) not in pairs
    ]
    lines = []
    for method, other in pairs:
        found = paired(means.get(method, {}), means.get(other, {}))
        if found is not None:
            lines.append(sentence(method, other, found))
    return lines


def movements(runs: Runs, methods: Sequence[str]) -> list[str]:
    """Return one line for each learned method: how far its λ moved.

    Means over layers and seeds tell the common direction. The mean distance of one
    parameter is larger if the parameters move in different directions.

    Args:
        runs: results of each seed and method.
        methods: methods of the run, in their order.
    """
    lines = []
    for method in methods:
        own = [run for run in runs if run["method"] == method and run["strengths"]]
        if not (own and METHODS[method].learned):
            continue
        moved = ", ".join(
            f"mean {title} {_strength(own, 0, part):.3f} → "
            f"{_strength(own, -1, part):.3f}"
            for title, part in _PARTS
        )
        distance = fmean(run["movement_mean"] for run in own)
        lines.append(
            f"λ of {method}: {moved}; a single parameter moved by {distance:.3f} on "
            f"average."
        )
    return lines


def averaged(runs: Mapping[str, Runs]) -> list[dict[str, Any]]:
    """Return the mean over unseen domains of each method and seed, as runs.

    A method and seed that lacks a domain is left out.

    Args:
        runs: maps each unseen domain to the results of its run.
    """
    by_domain = [_means(own) for own in runs.values()]
    return [
        {
            "method": method,
            "seed": seed,
            "accuracy": {"mean": fmean(means[method][seed] for means in by_domain)},
        }
        for method, seeds in by_domain[0].items()
        for seed in seeds
        if all(seed in means.get(method, {}) for means in by_domain)
    ]


def domains_table(runs: Mapping[str, Runs], methods: Sequence[str]) -> Table:
    """Return the accuracies of all methods on several unseen domains, and their mean.

    Args:
        runs: maps each unseen domain to the results of its run.
        methods: methods of the runs, in their order.
    """
    table = Table(title=f"Accuracy on {len(runs)} unseen domains, each left out once")
    table.caption = "± is the standard deviation over seeds."
    table.add_column("method", no_wrap=True)
    for name in (*runs, "mean"):
        table.add_column(name, justify="right")
    columns = [_means(own) for own in (*runs.values(), averaged(runs))]
    for method in methods:
        table.add_row(method, *(_cell(means.get(method, {})) for means in columns))
    return table


def _means(runs: Runs) -> dict[str, dict[int, float]]:
    """Return the accuracies by method and seed."""
    means: dict[str, dict[int, float]] = {}
    for run in runs:
        means.setdefault(run["method"], {})[run["seed"]] = run["accuracy"]["mean"]
    return means


def _strength(runs: Runs, place: int, part: str) -> float:
    """Return the mean strength over layers and seeds at a place of the history."""
    return fmean(
        fmean(layer[part] for layer in run["strengths"][place]["layers"].values())
        for run in runs
    )


def _cell(by_seed: Mapping[int, float]) -> str:
    if not by_seed:
        return ""
    values = list(by_seed.values())
    spread = f" ± {100 * deviation(values):.1f}" if len(values) > 1 else ""
    return f"{100 * fmean(values):.1f}{spread} %"
