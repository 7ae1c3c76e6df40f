import pytest
import torch
from planes import features

from l2l_evograd.experiments.crossdomain.report.pca import principal_plane


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


def test_the_plane_does_not_depend_on_the_unseen_domain():
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
