"""Features of all domains in the plane of their first two principal components."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.crossdomain.data.domains import Dataset, Domain
from l2l_evograd.experiments.crossdomain.networks.features import averaged
from l2l_evograd.experiments.crossdomain.networks.heads import FewShotModel
from l2l_evograd.experiments.crossdomain.training.evaluation import evaluating
from l2l_evograd.seeds import seeded

# Number of images of a domain, spread evenly over its novel split.
SHOWN_IMAGES = 60


class Plane(NamedTuple):
    """Features of several domains in one plane.

    Attributes:
        places: maps each domain to its points in the plane, shape (n, 2).
        shares: fraction of the seen domains' variance along each axis.
    """

    places: dict[str, Tensor]
    shares: tuple[float, float]


def principal_plane(features: Mapping[str, Tensor], unseen: str) -> Plane:
    """Project features to the plane with the largest variance of the seen domains.

    Args:
        features: maps each domain to its features, shape (n, d), d at least 2.
        unseen: the unseen domain, which does not affect the plane.

    Returns:
        The plane, with the seen domains' mean at the origin. The sign of
        each axis is chosen such that its largest weight is positive. The same features
        therefore always give the same points.

    Raises:
        InputError: for features of another shape, or if there is no seen or no unseen
            domain.

    Cost: one singular value decomposition of the seen domains' features in float64.
    """
    seen = [name for name in features if name != unseen]
    if not seen or unseen not in features:
        raise InputError(
            f"expected features of seen domains and of the unseen domain {unseen!r}, "
            f"got {', '.join(features) or 'none'}"
        )
    for name, rows in features.items():
        if rows.dim() != 2 or rows.shape[0] < 1 or rows.shape[1] < 2:
            raise InputError(
                f"expected the features of {name!r} to have the shape (n, d) with d of "
                f"at least 2, got {tuple(rows.shape)}; flatten or average feature maps"
            )
    double = {name: rows.detach().cpu().double() for name, rows in features.items()}
    basis = torch.cat([double[name] for name in seen])
    mean = basis.mean(dim=0)
    with seeded(0):  # pca_lowrank draws random numbers
        _, singular, axes = torch.pca_lowrank(basis, q=min(basis.shape))
    plane = torch.zeros(len(mean), 2, dtype=torch.float64)
    plane[:, : axes.shape[1]] = axes[:, :2]
    largest = plane.gather(0, plane.abs().argmax(dim=0, keepdim=True))
    plane = torch.where(largest < 0, -plane, plane)
    variance = singular.square()
    shares = (variance / variance.sum().clamp_min(1e-300)).tolist() + [0.0]
    places = {name: (rows - mean) @ plane for name, rows in double.items()}
    return Plane(places, (shares[0], shares[1]))


def projected_features(
    model: FewShotModel,
    domains: Mapping[str, Domain],
    unseen: str,
    device: torch.device,
) -> dict[str, Any]:
    """Return the points of a model's features of novel classes in a plane.

    Args:
        model: model whose encoder is used.
        domains: the domains by name.
        unseen: the unseen domain, which does not affect the plane.
        device: device of the model.

    Returns:
        ``"points"`` maps each domain to its points, the seen domains first.
        ``"shares"`` has the fraction of the seen domains' variance along each axis. The
        values are as JSON stores them. The result is empty if a feature is not finite.

    Cost: one forward pass for each of 60 images of each domain.
    """
    names = sorted(domains, key=lambda name: (name == unseen, name))
    found = {
        name: _features(model, domains[name].splits["novel"], device) for name in names
    }
    if not all(bool(rows.isfinite().all()) for rows in found.values()):
        return {}
    places, shares = principal_plane(found, unseen)
    return {
        "points": {
            name: [[round(x, 4) for x in row] for row in rows.tolist()]
            for name, rows in places.items()
        },
        "shares": list(shares),
    }


def plane_of(projected: Mapping[str, Any]) -> Plane:
    """Return the plane from a result of :func:`projected_features`."""
    places = {name: torch.tensor(rows) for name, rows in projected["points"].items()}
    first, second = projected["shares"]
    return Plane(places, (first, second))


def _features(model: FewShotModel, dataset: Dataset, device: torch.device) -> Tensor:
    count = min(SHOWN_IMAGES, len(dataset))
    chosen = [index * len(dataset) // count for index in range(count)]
    images = torch.stack([dataset[index][0] for index in chosen])
    with evaluating(model):
        return averaged(model.embed(images.to(device))).cpu()
