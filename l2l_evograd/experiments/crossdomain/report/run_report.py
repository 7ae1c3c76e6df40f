"""The table and the pictures of a finished run: accuracies and episodes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from rich.table import Table
from torch import Tensor

from l2l_evograd.experiments import pictures
from l2l_evograd.experiments.crossdomain.data.domains import Domain
from l2l_evograd.experiments.crossdomain.report.published import (
    SCALE,
    PublishedAccuracy,
)
from l2l_evograd.seeds import generator_for

# The colour of each method in all pictures.
METHOD_COLOURS = {
    "none": pictures.GREY,
    "ft": pictures.SKY,
    "lft-exact": pictures.BLUE,
    "lft-evograd": pictures.VERMILION,
    "lft-guided": pictures.GREEN,
}


# Marks published accuracies with a note. The caption explains the stars.
_STAR = "*"


def results_table(
    rows: Sequence[Mapping[str, Any]],
    unseen: str,
    known: Sequence[PublishedAccuracy] = (),
) -> Table:
    """Return the summary of a run as a table.

    Args:
        rows: rows from :meth:`~.results.CrossDomainResults.summary`.
        unseen: the unseen domain, on which the accuracies were measured.
        known: accuracies from :func:`~.published.published` for the setting of the
            run. Each is shown in the row of its method.
    """
    seeds = max(row["seeds"] for row in rows)
    table = Table(title=f"Accuracy on the unseen domain {unseen!r}, 95 % interval")
    table.caption = (
        "Intervals are over test episodes. Training with another seed can change a "
        "result by more; --seeds shows the spread."
        if seeds == 1
        else f"Accuracy: 95 % interval over test episodes. In other columns, ± is the "
        f"standard deviation over {seeds} seeds."
    )
    methods = {row["method"] for row in rows}
    known = [figure for figure in known if figure.method in methods]
    notes = list(dict.fromkeys(figure.note for figure in known if figure.note))
    if known:
        table.caption = f"{table.caption} {_sources(known, notes)}"
    table.add_column("method", no_wrap=True)  # in a narrow terminal, numbers wrap
    table.add_column("accuracy", justify="right")
    if seeds > 1:
        table.add_column("over seeds", justify="right")
    if len(rows) > 1:
        table.add_column(f"against {rows[0]['method']}", justify="right")
    if known:
        table.add_column("published", justify="right", min_width=len("published"))
    table.add_column("s/iter.", justify="right")
    table.add_column("memory", justify="right")
    spread = "gain_interval" if seeds == 1 else "gain_sd"
    for row in rows:
        cells = [row["method"], _percent(row["accuracy"], row["interval"])]
        if seeds > 1:
            cells.append(_percent(row["seed_mean"], row["seed_sd"]))
        if len(rows) > 1:
            gain = row["gain"]
            cells.append("" if gain is None else _percent(gain, row[spread], "+"))
        if known:
            own = [figure for figure in known if figure.method == row["method"]]
            cells.append("\n".join(_as_published(figure, notes) for figure in own))
        cells.append(f"{row['seconds_per_iteration']:.3f}")
        cells.append(f"{row['peak_memory_bytes'] / 2**20:,.0f} MiB")
        table.add_row(*cells)
    return table


def _as_published(figure: PublishedAccuracy, notes: Sequence[str]) -> str:
    stars = _STAR * (notes.index(figure.note) + 1) if figure.note else ""
    return f"{figure.mean:.2f} ± {figure.interval:.2f} %{stars}"


def _sources(known: Sequence[PublishedAccuracy], notes: Sequence[str]) -> str:
    """Return the sources of published accuracies, and the notes on some of them."""
    sources = dict.fromkeys((figure.source, figure.training) for figure in known)
    listed = "; ".join(f"{source} ({training})" for source, training in sources)
    special = "".join(
        f" {_STAR * (number + 1)} {note}." for number, note in enumerate(notes)
    )
    return f"Published, with {SCALE}: {listed}.{special}"


def draw_accuracy(
    rows: Sequence[Mapping[str, Any]], title: str, ways: int, path: Path
) -> None:
    """Draw the methods' accuracies as bars with their 95 % intervals.

    Args:
        rows: rows from :meth:`~.results.CrossDomainResults.summary`.
        title: title above the picture.
        ways: number of classes of an episode, for the line at chance level.
        path: path of the PNG, which is written whole or not at all.
    """
    figure = Figure(figsize=(1.6 + 0.95 * max(len(rows), 3), 3.6), layout="constrained")
    axes = figure.add_subplot()
    positions = range(len(rows))
    heights = [row["accuracy"] for row in rows]
    intervals = [row["interval"] for row in rows]
    axes.bar(
        positions,
        heights,
        width=0.62,
        yerr=intervals,
        capsize=4,
        color=[METHOD_COLOURS.get(row["method"], pictures.GREY) for row in rows],
        error_kw={"elinewidth": 1.2, "ecolor": pictures.INK},
    )
    for position, height, interval in zip(positions, heights, intervals, strict=True):
        axes.annotate(
            f"{height:.1%}",
            (position, height + interval),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    axes.axhline(1 / ways, color="#444444", linewidth=0.9, linestyle="--")
    axes.annotate(
        "chance",
        (1, 1 / ways),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 3),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color=pictures.INK,
    )
    axes.set_xlim(-0.6, len(rows) - 0.1)
    axes.set_xticks(positions, [row["method"] for row in rows])
    axes.set_ylim(0, min(1.0, 1.15 * max(heights)))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("accuracy, unseen domain")
    axes.set_title(title, fontsize=10)
    pictures.without_frame(axes)
    pictures.save(figure, path)


def draw_episodes(
    domains: Mapping[str, Domain],
    unseen: str,
    shape: tuple[int, int],
    seed: int,
    path: Path,
) -> None:
    """Draw the support set of one episode from every domain.

    Each column is a class and each row is a shot. Seen domains show base classes, as in
    training. The unseen domain shows novel classes, as in the test.

    Args:
        domains: the domains by name.
        unseen: name of the unseen domain, which comes last.
        shape: ways and shots; at most five shots are shown.
        seed: seed of the random choice of images.
        path: path of the PNG, which is written whole or not at all.
    """
    ways, shots = shape[0], min(shape[1], 5)
    names = [name for name in domains if name != unseen] + [unseen]
    columns = min(len(names), 5)
    rows = -(-len(names) // columns)
    figure = Figure(
        figsize=(0.4 * ways * columns + 0.3, (0.4 * shots + 0.45) * rows),
        layout="constrained",
    )
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, name in zip(panels, names, strict=False):
        split = "novel" if name == unseen else "base"
        grid = _support_grid(domains[name], split, ways, shots, seed)
        role = "unseen" if name == unseen else "seen"
        _show(axes, grid, f"{name} ({role})", bold=name == unseen)
    for axes in panels:
        axes.axis("off")
    pictures.save(figure, path)


def _support_grid(
    domain: Domain, split: str, ways: int, shots: int, seed: int
) -> Tensor:
    """Return the images of one episode as a single picture, (H, W, 3) bytes."""
    dataset = domain.splits[split]
    generator = generator_for(seed, "picture", domain.name)
    classes = sorted(set(dataset.labels))
    chosen = torch.randperm(len(classes), generator=generator)[:ways].tolist()
    columns = []
    for position in chosen:
        members = [i for i, y in enumerate(dataset.labels) if y == classes[position]]
        order = torch.randperm(len(members), generator=generator)[:shots].tolist()
        images = [_framed(dataset.picture(members[i])) for i in order]
        columns.append(torch.cat(images, dim=1))
    return torch.cat(columns, dim=2).permute(1, 2, 0)


def _framed(image: Tensor) -> Tensor:
    """Return the image with a white line around it."""
    width = max(1, image.shape[-1] // 24)
    return torch.nn.functional.pad(image, [width] * 4, value=255)


def _show(axes: Axes, picture: Tensor, title: str, bold: bool) -> None:
    axes.imshow(picture.numpy(), interpolation="nearest")
    axes.set_title(title, fontsize=8, fontweight="bold" if bold else "normal")


def _percent(value: float, spread: float, sign: str = "") -> str:
    return f"{100 * value:{sign}.2f} ± {100 * spread:.2f} %"
