from pathlib import Path

import pytest
from consoles import silent_console
from PIL import Image
from tiny import tiny_domains

from l2l_evograd.fewshot.report import draw_accuracy, draw_episodes, results_table


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


def printed(rows: list[dict[str, object]]) -> str:
    console = silent_console()
    console.print(results_table(rows, "sketch"))
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
