from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from l2l_evograd.experiments.crossdomain.report.strengths_picture import (
    draw_strengths,
    strengths_figure,
)

LAYERS = ("model.backbone.layer1.0.bn2.1", "model.backbone.layer2.0.downsample.1.1")


def run(method: str, seed: int = 0, *points: tuple[int, float]) -> dict[str, Any]:
    """A run whose two layers have the strength of each point and twice that."""
    strengths = [
        {
            "iteration": iteration,
            "layers": {
                name: {"gamma": factor * value, "beta": 10 + factor * value}
                for factor, name in enumerate(LAYERS, start=1)
            },
        }
        for iteration, value in points
    ]
    return {"method": method, "seed": seed, "strengths": strengths}


def drawn(runs: list[dict[str, Any]]) -> Figure:
    figure = strengths_figure(runs)
    assert figure is not None
    return figure


def lines(figure: Figure, panel: int) -> list[tuple[list[float], list[float]]]:
    found = figure.axes[panel].get_lines()
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in found]


def test_there_is_a_line_for_each_layer_and_method():
    runs = [
        run("none"),
        run("ft", 0, (0, 0.3), (2, 0.3)),
        run("lft-exact", 0, (0, 0.3), (2, 0.4)),
        run("lft-guided", 0, (0, 0.3), (2, 0.5)),
    ]
    figure = drawn(runs)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["lft-exact", "lft-guided"]
    first, second, fixed = lines(figure, 0)
    assert first == ([0, 2], [0.3, 0.4]) and second == ([0, 2], [0.6, 0.8])
    # Two layers of ft: 0.3 and 0.6.
    assert fixed[1] == pytest.approx([0.45, 0.45])
    assert lines(figure, 1)[0] == ([0, 2], [0.3, 0.5])
    assert lines(figure, 2)[0] == ([0, 2], [10.3, 10.4])
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["layer1.0.bn2", "layer2.0.downsample.1", "ft, fixed"]


def test_seeds_are_averaged_and_without_ft_there_is_no_dashed_line():
    runs = [
        run("lft-exact", 0, (0, 0.3), (5, 0.4)),
        run("lft-exact", 1, (0, 0.3), (5, 0.6)),
    ]
    first, second = lines(drawn(runs), 0)
    np.testing.assert_allclose(first[1], [0.3, 0.5], rtol=1e-12)
    np.testing.assert_allclose(second[1], [0.6, 1.0], rtol=1e-12)


def test_layers_that_hardly_move_do_not_fill_the_panel():
    still = {"iteration": 5, "layers": {"a": {"gamma": 0.3, "beta": 0.5}}}
    moved = {"iteration": 9, "layers": {"a": {"gamma": 0.3001, "beta": 0.9}}}
    runs = [{"method": "lft-exact", "seed": 0, "strengths": [still, moved]}]
    (low, high), (lowest, highest) = (axes.get_ylim() for axes in drawn(runs).axes)
    assert high - low == pytest.approx(0.02) and highest - lowest > 0.4


def test_where_nothing_is_learned_nothing_is_drawn(tmp_path: Path):
    runs = [run("none"), run("ft", 0, (0, 0.3))]
    assert not draw_strengths(runs, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_the_picture_is_written(tmp_path: Path):
    runs = [run("ft", 0, (0, 0.3)), run("lft-exact", 0, (0, 0.3))]
    assert draw_strengths(runs, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        colours = picture.convert("RGB").getcolors(10**7)
    assert colours is not None and len(colours) > 50
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
