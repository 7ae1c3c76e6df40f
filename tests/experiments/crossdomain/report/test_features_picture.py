from pathlib import Path

import pytest
import torch
from PIL import Image
from planes import features
from torch import Tensor

from l2l_evograd.experiments.crossdomain.report.features_picture import draw_planes
from l2l_evograd.experiments.crossdomain.report.pca import principal_plane


def draw_features(
    features: dict[str, dict[str, Tensor]], unseen: str, path: Path
) -> None:
    planes = {name: principal_plane(each, unseen) for name, each in features.items()}
    draw_planes(planes, unseen, path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sketch": torch.ones(2, 3)}, "expected features of seen domains and of the"),
        ({"photo": torch.ones(2, 3)}, "unseen domain 'sketch', got photo"),
        (
            {"photo": torch.ones(2, 3, 4, 4), "sketch": torch.ones(2, 3)},
            r"features of 'photo' to have the shape \(n, d\).*got \(2, 3, 4, 4\)",
        ),
        ({"photo": torch.ones(2, 1), "sketch": torch.ones(2, 1)}, "d of at least 2"),
    ],
)
def test_features_that_have_no_plane_are_refused(
    given: dict[str, Tensor], message: str, tmp_path: Path
):
    with pytest.raises(ValueError, match=message):
        draw_features({"none": given}, "sketch", tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_the_picture_is_the_same_every_time(tmp_path: Path):
    methods = {f"method {number}": features(number) for number in range(4)}
    draw_features(methods, "sketch", tmp_path / "a.png")
    planes = {name: principal_plane(each, "sketch") for name, each in methods.items()}
    draw_planes(planes, "sketch", tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        colours = picture.convert("RGB").getcolors(10**7)
    assert colours is not None and len(colours) > 50


def test_no_method_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="at least one method, got none"):
        draw_features({}, "sketch", tmp_path / "a.png")
