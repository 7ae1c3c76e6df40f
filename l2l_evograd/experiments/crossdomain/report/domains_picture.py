"""The picture of several runs: accuracy by unseen domain and method."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from l2l_evograd.experiments import pictures
from l2l_evograd.experiments.crossdomain.methods import METHODS
from l2l_evograd.experiments.crossdomain.report.aggregate import Comparison
from l2l_evograd.experiments.crossdomain.report.run_report import METHOD_COLOURS

# The fraction of the distance between two domains that bars take.
_FILLED = 0.8


def draw_domains(
    comparisons: Sequence[Comparison], titles: Sequence[str], path: Path
) -> None:
    """Draw the accuracies as groups of bars with their 95 % intervals.

    There is one panel for each comparison, one group for each unseen domain, and one
    bar for each method.

    Args:
        comparisons: comparisons from :func:`~.aggregate.compare`.
        titles: one title for each panel.
        path: path of the PNG, which is written whole or not at all.
    """
    found = {method for comparison in comparisons for method in comparison.methods}
    methods = [method for method in METHODS if method in found]
    most = max(len(comparison.rows) for comparison in comparisons)
    width = max(5.2, 1.2 + most * max(0.35 * len(methods), 0.8))
    figure = Figure(figsize=(width, 2.5 * len(comparisons) + 0.5), layout="constrained")
    panels = figure.subplots(len(comparisons), 1, squeeze=False)[:, 0]
    handles = {}
    for axes, comparison, title in zip(panels, comparisons, titles, strict=True):
        _bars(axes, comparison)
        axes.set_title(title, fontsize=9)
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles[name] = handle
    figure.legend(
        [handles[method] for method in methods],
        methods,
        loc="outside lower center",
        ncols=len(methods),
        frameon=False,
        fontsize=8,
    )
    pictures.save(figure, path)


def _bars(axes: Axes, comparison: Comparison) -> None:
    """Draw a comparison, with a line at chance level."""
    methods, domains = comparison.methods, list(comparison.rows)
    bar = _FILLED / len(methods)
    tops: list[float] = []
    for number, method in enumerate(methods):
        rows = [
            (place, rows[method])
            for place, rows in enumerate(comparison.rows.values())
            if method in rows
        ]
        offset = (number - (len(methods) - 1) / 2) * bar
        tops.extend(row["accuracy"] + row["interval"] for _, row in rows)
        axes.bar(
            [place + offset for place, _ in rows],
            [row["accuracy"] for _, row in rows],
            width=0.92 * bar,
            yerr=[row["interval"] for _, row in rows],
            capsize=2,
            color=METHOD_COLOURS.get(method, pictures.GREY),
            error_kw={"elinewidth": 1.0, "ecolor": pictures.INK},
            label=method,
        )
    chance = 1 / comparison.settings.ways
    axes.axhline(chance, color="#444444", linewidth=0.9, linestyle="--")
    axes.annotate(
        "chance",
        (1, chance),
        xycoords=("axes fraction", "data"),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=pictures.INK,
    )
    axes.set_xlim(-0.5, len(domains) - 0.5)
    axes.set_xticks(range(len(domains)), domains)
    axes.set_ylim(0, min(1.0, 1.1 * max(tops)))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("accuracy", fontsize=9)
    pictures.without_frame(axes)
