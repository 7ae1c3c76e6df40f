import pytest
from photographs import make_domain

from l2l_evograd.experiments.crossdomain.data.domains import usual_image_size


@pytest.mark.parametrize(
    ("backbone", "own_sizes", "expected"),
    [
        ("cnn4", None, 24),
        ("resnet10", None, 24),
        ("cnn4", [500], 84),
        ("resnet10", [500], 224),
        ("resnet10", [300, 100], 100),
        ("cnn4", [32], 32),
    ],
)
def test_images_are_not_enlarged_unasked(backbone, own_sizes, expected, tmp_path):
    for number, side in enumerate(own_sizes or []):
        make_domain(tmp_path, f"domain {number}", size=(side, side + 7))
    root = None if own_sizes is None else tmp_path
    assert usual_image_size(backbone, root) == expected
