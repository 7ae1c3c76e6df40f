"""The Markdown report of several runs: accuracies, costs, and sources of numbers."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any
from urllib.parse import quote

from l2l_evograd.experiments.crossdomain.report.aggregate import Comparison, GatheredRun
from l2l_evograd.experiments.crossdomain.report.published import (
    COST_DEVICE,
    ITERATIONS_OF_EPOCH,
    SCALE,
    PublishedAccuracy,
    PublishedCost,
    published,
    published_costs,
)

_INTRODUCTION = (
    "The tables show the accuracy in percent on novel classes of a domain that was "
    "left out of training. ± is half the 95 % interval over the test episodes of all "
    "seeds (1.96 sd/√n). sd is the standard deviation of the seeds' means. Training "
    "with another seed can change an accuracy by more than the interval. Rows in "
    "italics are published results."
)
_COSTS = (
    f"Seconds are medians over the iterations of meta-training, averaged over seeds "
    f"and domains. Memory is the highest peak above the use before meta-training: of "
    f"torch's allocator on a GPU, of the process on a CPU. GB are 10⁹ bytes. In the "
    f"publications, an epoch has {ITERATIONS_OF_EPOCH} iterations; they do not state "
    f"whether GB are 10⁹ or 2³⁰ bytes."
)


def titles_of(comparisons: Sequence[Comparison]) -> list[str]:
    """Return a heading for each comparison, with a number if there are several."""
    titles = []
    for number, comparison in enumerate(comparisons, start=1):
        settings = comparison.settings
        parts = [
            f"{settings.ways}-way {settings.shots}-shot",
            settings.head,
            settings.backbone,
            f"{settings.image_size} px",
            f"{settings.iterations:,} iterations",
        ]
        parts += [
            f"{name} = {'default' if value is None else value}"
            for name, value in comparison.differing.items()
        ]
        count = f"{number}. " if len(comparisons) > 1 else ""
        titles.append(count + ", ".join(parts))
    return titles


def report_text(comparisons: Sequence[Comparison], folder: Path, picture: str) -> str:
    """Return the report.

    Args:
        comparisons: comparisons from :func:`~.aggregate.compare`.
        folder: folder of the report; links are relative to it.
        picture: name of the picture of the accuracies in that folder.
    """
    blocks = ["# Few-shot learning across domains", _INTRODUCTION]
    for comparison, title in zip(comparisons, titles_of(comparisons), strict=True):
        blocks += [f"## {_escaped(title)}", *_accuracies(comparison)]
    blocks += [
        f"![Accuracy by unseen domain and method]({quote(picture)})",
        "## Costs of meta-training",
        _COSTS,
        *_costs(comparisons),
        "## Runs",
        "\n".join(_run_line(run, folder) for each in comparisons for run in each.runs),
    ]
    return "\n\n".join(blocks) + "\n"


def _accuracies(comparison: Comparison) -> list[str]:
    """Return the table of a comparison and the sources of its published rows."""
    domains = list(comparison.rows)
    with_mean = comparison.complete and len(domains) > 1
    header = ["method", *map(_escaped, domains), *(["mean"] * with_mean), "seeds"]
    lines = []
    for method in comparison.methods:
        rows = [comparison.rows[domain].get(method) for domain in domains]
        there = [row for row in rows if row is not None]
        cells = [method, *("" if row is None else _own(row) for row in rows)]
        if with_mean:
            whole = len(there) == len(domains)
            mean = fmean(100 * row["accuracy"] for row in there)
            cells.append(f"{mean:.2f}" if whole else "")
        seeds = sorted({row["seeds"] for row in there})
        cells.append(" to ".join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1]))))
        lines.append(cells)
    references: dict[str, str] = {}
    for figures in _published_rows(comparison):
        any_one = next(iter(figures.values()))
        reference = _reference(
            references,
            f"{any_one.source}; {any_one.training}, {SCALE}"
            + (f"; {any_one.note}" if any_one.note else ""),
        )
        cells = [f"{any_one.method}, published {reference}"]
        cells += [
            f"{figures[d].mean:.2f} ± {figures[d].interval:.2f}" if d in figures else ""
            for d in domains
        ]
        if with_mean:
            mean = fmean(figure.mean for figure in figures.values())
            cells.append(f"{mean:.2f}" if len(figures) == len(domains) else "")
        lines.append([*map(_italic, cells), ""])
    return [_table(header, lines), *_listed(references)]


def _published_rows(comparison: Comparison) -> list[dict[str, PublishedAccuracy]]:
    """Return the published rows, each as a mapping from domains to accuracies."""
    settings = comparison.settings
    rows: dict[tuple[str, str, str], dict[str, PublishedAccuracy]] = {}
    for domain in comparison.rows:
        for figure in published(
            settings.head, settings.backbone, settings.ways, settings.shots, domain
        ):
            which = (figure.method, figure.note, figure.source)
            rows.setdefault(which, {})[domain] = figure
    return list(rows.values())


def _costs(comparisons: Sequence[Comparison]) -> list[str]:
    """Return the table of costs and the sources of its published rows."""
    numbered = len(comparisons) > 1
    header = [
        *(["table"] * numbered),
        "method",
        "device",
        "s/iteration",
        f"s/{ITERATIONS_OF_EPOCH} iterations",
        "peak memory, MiB",
        "GB",
    ]
    lines = []
    costs: dict[PublishedCost, list[str]] = {}
    for number, comparison in enumerate(comparisons, start=1):
        for method in comparison.methods:
            rows = [rows[method] for rows in comparison.rows.values() if method in rows]
            about = [method, comparison.runs[0].device, *_own_cost(rows)]
            lines.append([str(number)] * numbered + about)
        settings = comparison.settings
        for cost in published_costs(
            settings.head, settings.backbone, settings.ways, settings.shots
        ):
            costs.setdefault(cost, []).append(str(number))
    references: dict[str, str] = {}
    for cost, numbers in costs.items():
        cells = _published_cost(cost, _reference(references, cost.source))
        cells = [", ".join(numbers)] * numbered + cells
        lines.append([_italic(cell) for cell in cells])
    left = 3 if numbered else 2
    return [_table(header, lines, left), *_listed(references)]


def _own_cost(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    seconds = fmean(row["seconds_per_iteration"] for row in rows)
    peak = max(row["peak_memory_bytes"] for row in rows)
    return [
        f"{seconds:.3f}",
        f"{ITERATIONS_OF_EPOCH * seconds:.1f}",
        f"{peak / 2**20:,.0f}",
        f"{peak / 1e9:.2f}",
    ]


def _published_cost(cost: PublishedCost, reference: str) -> list[str]:
    return [
        f"{cost.method}, published {reference}",
        COST_DEVICE,
        f"{cost.seconds_per_iteration:.3f}",
        f"{cost.seconds_per_epoch:.1f}",
        "",
        f"{cost.gigabytes:.1f}",
    ]


def _run_line(run: GatheredRun, folder: Path) -> str:
    """Return the line of a run: folder, domain, seeds, missing methods, pictures."""
    place = os.path.relpath(run.folder.resolve(), folder.resolve())
    settings = run.settings
    seeds = ", ".join(map(str, settings.all_seeds))
    text = (
        f"- [{_escaped(str(run.folder))}]({quote(place)}): unseen "
        f"{_escaped(settings.unseen)}, seed{'s' if settings.seeds > 1 else ''} {seeds}"
    )
    if run.missing:
        listed = ", ".join(f"{method} of seed {seed}" for seed, method in run.missing)
        text += f"; not finished: {listed}"
    names = sorted(path.name for path in run.folder.glob("*.png"))
    pictures = [f"[{_escaped(name)}]({quote(f'{place}/{name}')})" for name in names]
    return text + (f"; {', '.join(pictures)}" if pictures else "")


def _own(row: Mapping[str, Any]) -> str:
    text = f"{100 * row['accuracy']:.2f} ± {100 * row['interval']:.2f}"
    if row["seeds"] > 1:
        text += f" (sd {100 * row['seed_sd']:.2f})"
    return text


def _reference(references: dict[str, str], text: str) -> str:
    """Return the mark of a source, and add a new mark for a new source."""
    return references.setdefault(text, f"[{len(references) + 1}]")


def _listed(references: Mapping[str, str]) -> list[str]:
    lines = [f"- {mark} {text}" for text, mark in references.items()]
    return ["\n".join(lines)] if lines else []


def _table(header: Sequence[str], lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a table. The first ``left`` columns are left-aligned, others right."""
    rule = ["---" if column < left else "--:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *lines))


def _italic(cell: str) -> str:
    return f"*{cell}*" if cell else ""


def _escaped(text: str) -> str:
    """Return ``text`` with the special characters of Markdown escaped."""
    return re.sub(r"([\\`*\[\]<>|]|\b_|_\b|(?<=_)_)", r"\\\1", text)
