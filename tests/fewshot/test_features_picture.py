from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from l2l_evograd.fewshot.features_picture import draw_planes
from l2l_evograd.fewshot.plane import principal_plane


def features(seed: int = 0, width: int = 7) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.arange(width, 0, -1).double()
    return {
        name: spread * torch.randn(count, width, generator=generator).double()
        for name, count in (("photo", 12), ("print", 9), ("sketch", 5))
    }


def draw_features(
    features: dict[str, dict[str, Tensor]], unseen: str, path: Path
) -> None:
    planes = {name: principal_plane(each, unseen) for name, each in features.items()}
    draw_planes(planes, unseen, path)


def test_the_plane_is_spanned_by_the_covariances_first_eigenvectors():
    given = features()
    places, shares = principal_plane(given, "sketch")
    seen = torch.cat([given["photo"], given["print"]])
    mean = seen.mean(dim=0)
    values, vectors = torch.linalg.eigh((seen - mean).T @ (seen - mean))
    for axis in range(2):
        direction = vectors[:, -1 - axis]
        direction = direction * direction[direction.abs().argmax()].sign()
        for name, rows in given.items():
            torch.testing.assert_close(
                places[name][:, axis], (rows - mean) @ direction, rtol=0, atol=1e-10
            )
        assert shares[axis] == pytest.approx(float(values[-1 - axis] / values.sum()))


def test_the_unseen_domain_has_no_say_in_the_plane():
    given = features()
    other = {**given, "sketch": 100 * given["sketch"] + 3}
    own, others = (principal_plane(each, "sketch")[0] for each in (given, other))
    assert torch.equal(own["photo"], others["photo"])
    assert not torch.allclose(own["sketch"], others["sketch"])


def test_single_precision_and_the_order_of_rows_make_no_other_picture():
    given = features()
    single = {name: rows.float().requires_grad_() for name, rows in given.items()}
    flipped = {name: rows.flip(0) for name, rows in given.items()}
    places, _ = principal_plane(given, "sketch")
    for name, rows in principal_plane(single, "sketch")[0].items():
        torch.testing.assert_close(rows, places[name], rtol=1e-5, atol=1e-4)
    for name, rows in principal_plane(flipped, "sketch")[0].items():
        torch.testing.assert_close(rows.flip(0), places[name], rtol=0, atol=1e-10)


def test_features_without_spread_lie_in_one_place():
    given = {"photo": torch.ones(1, 3), "sketch": torch.ones(2, 3)}
    places, shares = principal_plane(given, "sketch")
    assert shares == (0.0, 0.0)
    assert torch.equal(places["sketch"], torch.zeros(2, 2).double())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sketch": torch.ones(2, 3)}, "expected features of seen domains and of the"),
        ({"photo": torch.ones(2, 3)}, "the unseen one 'sketch', got photo"),
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


def test_a_training_that_diverged_has_a_panel_that_says_so(tmp_path: Path):
    broken = {**features(), "photo": torch.full((4, 7), torch.inf)}
    places, _ = principal_plane(broken, "sketch")
    assert bool(places["sketch"].isnan().all())
    draw_features({"none": features(), "ft": broken}, "sketch", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > picture.height


def test_no_method_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="at least one method, got none"):
        draw_features({}, "sketch", tmp_path / "a.png")
