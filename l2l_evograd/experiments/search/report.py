"""The table of a search run, and what it shows in words."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from rich.table import Table

from l2l_evograd.experiments.results import RunResults
from l2l_evograd.experiments.search.problem import Problem
from l2l_evograd.experiments.search.results import DEFAULT
from l2l_evograd.experiments.search.settings import SearchSettings
from l2l_evograd.experiments.verdicts import LEAST_SEEDS, difference


def results_table(
    rows: Sequence[Mapping[str, Any]], problem: Problem, settings: SearchSettings
) -> Table:
    """Return the summary of a run as a table.

    Args:
        rows: from :meth:`~.results.SearchResults.summary`.
        problem: what was searched.
        settings: settings of the run.
    """
    searches = max(row["seeds"] for row in rows)
    several = "" if searches == 1 else f", means over {searches} searches"
    table = Table(title=f"Settings of {problem.command}, {problem.method}{several}")
    trainings = settings.fresh_seeds * searches
    table.caption = (
        f"Validation loss after {problem.searched.fidelity} of {problem.high}; seen: "
        f"the lowest in the search, too low because it was chosen; fresh: mean ± "
        f"standard deviation of {trainings} new trainings; spent: in whole trainings."
    )
    table.add_column("", no_wrap=True)
    for row in rows:
        control = row["method"] == DEFAULT
        name = "default settings" if control else row["method"]
        table.add_column(name, justify="right", no_wrap=True)
    for name in problem.space:
        table.add_row(name, *(_setting(row, name) for row in rows))
    table.add_section()
    table.add_row("loss seen", *(_loss(row, "searched_loss") for row in rows))
    table.add_row("loss, fresh", *(_loss(row, "loss") for row in rows))
    table.add_row("trainings", *(_number(row, "trainings", "g") for row in rows))
    table.add_row("spent", *(_number(row, "spent", ".1f") for row in rows))
    table.add_row("seconds", *(_number(row, "seconds", ".0f") for row in rows))
    return table


def conclusions(results: RunResults) -> list[str]:
    """Return one line for each method, against the defaults and the first method."""
    lines = []
    methods = results.settings.methods
    for method in methods:
        runs = results.of(method)
        if not runs:
            continue
        lines.append(_against(method, "the default settings", _pairs(runs)))
        if method != methods[0]:
            others = {run["seed"]: run["losses"] for run in results.of(methods[0])}
            pairs = [
                (run["losses"], others[run["seed"]])
                for run in runs
                if run["seed"] in others
            ]
            if pairs:
                lines.append(_against(method, methods[0], pairs))
    return lines


_Losses = Sequence[float | None]


def _pairs(runs: Sequence[Mapping[str, Any]]) -> list[tuple[_Losses, _Losses]]:
    return [(run["losses"], run["default_losses"]) for run in runs]


def _against(method: str, other: str, pairs: list[tuple[_Losses, _Losses]]) -> str:
    """Return a line that says whether the losses of two methods differ.

    One search is compared over its fresh seeds. Several are compared over the searches,
    because the fresh trainings of one search have the same settings.
    """
    start = f"Loss of {method} against {other}"
    if any(None in losses for pair in pairs for losses in pair):
        return f"{start}: trainings on fresh seeds diverged."
    if not all(losses for pair in pairs for losses in pair):
        return f"{start}: nothing was found."
    own, theirs = zip(*pairs, strict=True)
    unit = "fresh seeds"
    if len(pairs) == 1:
        (mine,), (others,) = own, theirs
    else:
        unit = "searches"
        mine, others = ([fmean(losses) for losses in each] for each in (own, theirs))
    found = difference(mine, others)
    text = f"{start}: {found.mean:+.4f}"
    if found.seeds < LEAST_SEEDS:
        return f"{text} over {found.seeds} {unit}: too few to say more."
    verdict = "shown" if found.shown else "not shown"
    return f"{text} ± {found.error:.4f} over {found.seeds} {unit}: {verdict}."


def _setting(row: Mapping[str, Any], name: str) -> str:
    if row["best"] is None:
        return ""
    value = row["best"][name]
    if value is None:
        return "default"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _loss(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        return ""
    if row[name] is None:
        return "diverged"
    deviation = row.get(f"{name}_sd")
    return f"{row[name]:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def _number(row: Mapping[str, Any], name: str, form: str) -> str:
    return format(row[name], form) if name in row else ""
