"""The table of a finished few-shot run, and what it shows in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from l2l_evograd.experiments.fewshot.methods import BASELINE, METHODS
from l2l_evograd.experiments.fewshot.results import accuracy_by_seed
from l2l_evograd.experiments.fewshot.settings import FewShotSettings
from l2l_evograd.experiments.results import RunResults
from l2l_evograd.experiments.verdicts import paired, sentence


def results_table(
    rows: Sequence[Mapping[str, Any]], settings: FewShotSettings, title: str
) -> Table:
    """Return the summary of a run as a table.

    Args:
        rows: rows from :meth:`~.results.FewShotResults.summary`.
        settings: settings of the run.
        title: title above the table.
    """
    seeds = max(row["seeds"] for row in rows)
    spread = (
        f"half the 95 % interval over {settings.tasks} tasks"
        if seeds == 1
        else f"standard error over {seeds} seeds"
    )
    table = Table(title=title)
    table.caption = (
        f"Accuracy on new classes in %, after as many steps as in meta-training and "
        f"after {settings.test_steps}; ±: {spread}. "
        f"Meta-training of a seed: meta-iterations, thousands of gradients, seconds, "
        f"and peak memory. Query images are classified together (transductive)."
    )
    table.add_column("method", no_wrap=True)
    columns = {
        "as trained": lambda row: _percent(row, "at_steps"),
        f"{settings.test_steps} steps": lambda row: _percent(row, "at_end"),
        "iter.": lambda row: f"{row['iterations']:.0f}",
        "grad.": lambda row: f"{row['gradients'] / 1000:,.1f}",
        "s": lambda row: f"{row['seconds']:.1f}",
        "MiB": lambda row: _memory(row["peak_memory_bytes"]),
    }
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row["method"], *(cell(row) for cell in columns.values()))
    return table


def conclusions(results: RunResults) -> list[str]:
    """Return one line for each comparison of two methods.

    Every method is compared with MAML, or with the first method if MAML is missing.
    Learned warp layers are also compared with those that are never trained, and ARUBA
    with Reptile.

    Args:
        results: results of the run.
    """
    settings: Any = results.settings
    methods = [method for method in settings.methods if results.of(method)]
    if len(methods) < 2:
        return []
    baseline = BASELINE if BASELINE in methods else methods[0]
    pairs = [(method, baseline) for method in methods if method != baseline]
    for method in methods:
        control = METHODS[method].control
        if control in methods and control != baseline:
            pairs.append((method, control))
    step = settings.test_steps
    lines = [f"Accuracy on new classes after {step} steps:"]
    for own, other in pairs:
        found = paired(
            accuracy_by_seed(results, own, step),
            accuracy_by_seed(results, other, step),
        )
        if found is not None:
            lines.append(sentence(own, other, found))
    return lines


def _percent(row: Mapping[str, Any], name: str) -> str:
    return f"{100 * row[name]:.1f} ± {100 * row[f'{name}_error']:.1f}"


def _memory(value: int | None) -> str:
    return "" if value is None else f"{value / 2**20:,.0f}"
