from collections.abc import Sequence
from pathlib import Path

import pytest
from consoles import silent_console
from PIL import Image
from tiny import tiny_domains

from l2l_evograd.experiments.crossdomain.report.published import (
    PublishedAccuracy,
    published,
)
from l2l_evograd.experiments.crossdomain.report.run_report import (
    draw_accuracy,
    draw_episodes,
    results_table,
)


def row(method: str, seeds: int = 1, gain: float | None = None) -> dict[str, object]:
    return {
        "method": method,
        "seeds": seeds,
        "accuracy": 0.6431,
        "interval": 0.0072,
        "seed_mean": 0.6431,
        "seed_sd": 0.0123,
        "gain": gain,
        "gain_interval": None if gain is None else 0.004,
        "gain_sd": None if gain is None else 0.0077,
        "seconds_per_iteration": 0.125,
        "peak_memory_bytes": 300 * 2**20,
    }


def printed(
    rows: list[dict[str, object]],
    known: Sequence[PublishedAccuracy] = (),
    width: int = 100,
) -> str:
    console = silent_console()
    console.width = width
    console.print(results_table(rows, "sketch", known))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_shows_accuracy_gain_time_and_memory():
    text = printed([row("none"), row("ft", gain=-0.021)])
    assert "unseen domain 'sketch'" in text
    assert "64.31 ± 0.72 %" in text
    assert "-2.10 ± 0.40 %" in text
    assert "0.125" in text and "300 MiB" in text
    assert "over seeds" not in text and "--seeds" in text


def test_several_seeds_have_a_column_of_their_own():
    text = printed([row("none", seeds=3), row("ft", seeds=3, gain=0.01)])
    assert "over seeds" in text and "64.31 ± 1.23 %" in text
    assert "+1.00 ± 0.77 %" in text and "over 3 seeds" in text


def test_a_single_method_is_compared_with_nothing():
    assert "against" not in printed([row("none")])


@pytest.mark.parametrize("count", [1, 5])
def test_the_bars_are_drawn(count: int, tmp_path: Path):
    names = ["none", "ft", "lft-exact", "lft-evograd", "something else"][:count]
    draw_accuracy([row(name) for name in names], "title", 5, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 600


def test_an_episode_of_every_domain_is_drawn(tmp_path: Path):
    draw_episodes(tiny_domains(), "sketch", (3, 7), 0, tmp_path / "a.png")
    draw_episodes(tiny_domains(), "sketch", (3, 7), 0, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > picture.height
        colours = picture.convert("RGB").getcolors(10**7)
    assert colours is not None and len(colours) > 1000


def test_published_figures_stand_beside_ones_own():
    known = published("relationnet", "resnet10", 5, 5, "cub")
    rows = [row("none"), row("lft-exact", gain=0.02), row("lft-guided", gain=0.03)]
    text = printed(rows, known)
    assert "published" in text and "62.13 ± 0.74 %" in text
    # Two figures of one method, the second one starred; none of those not run.
    assert "64.99 ± 0.54 %" in text and "65.94 ± 0.56 %*" in text
    assert "63.64" not in text and "64.63" not in text
    caption = " ".join(text.split())
    assert "FWT (Tseng et al., ICLR 2020), as quoted by EvoGrad" in caption
    assert "(leave-one-out)" in caption and "* EvoGrad authors' rerun." in caption


@pytest.mark.parametrize("method", ["lft-guided", "none"])
def test_without_a_published_figure_there_is_no_column(method: str):
    known = published("relationnet", "resnet10", 5, 5, "cub")
    known = [figure for figure in known if figure.method != "none"]
    text = printed([row(method)], known).lower()
    assert "published" not in text and "fwt" not in text


def test_on_a_narrow_terminal_figures_wrap_and_are_not_cut():
    known = published("relationnet", "resnet10", 5, 5, "cub")
    rows = [row("none", seeds=3), row("lft-evograd", seeds=3, gain=0.01)]
    text = printed(rows, known, width=80)
    assert "…" not in text and "lft-evograd" in text
    for figure in ("64.31 ±", "0.72 %", "+1.00 ±", "0.77 %", "64.63 ±", "0.125"):
        assert figure in text
