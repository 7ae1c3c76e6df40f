"""Features in the plane of their first two principal components."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Plane(NamedTuple):
    """Features of several domains in one plane.

    Attributes:
        places: domain -> places in the plane, shape (n, 2), float64.
        shares: of the seen domains' variance, along each axis.
    """

    places: dict[str, Tensor]
    shares: tuple[float, float]


def principal_plane(features: Mapping[str, Tensor], unseen: str) -> Plane:
    """Return features in the plane where those of the seen domains spread most.

    Args:
        features: domain -> features, shape (n, d), d at least 2.
        unseen: the domain that has no say in the plane.

    Returns:
        The plane, with the seen domains' mean at the origin. An axis points to where
        its largest weight is positive, so that the same features always give the same
        places. Features that are not all finite have no plane: all is NaN then.

    Raises:
        ValueError: for features of another shape, or no seen or no unseen domain.

    Cost: one singular value decomposition in double precision, of the seen domains'
    features.
    """
    seen = [name for name in features if name != unseen]
    if not seen or unseen not in features:
        raise ValueError(
            f"expected features of seen domains and of the unseen one {unseen!r}, got "
            f"{', '.join(features) or 'none'}"
        )
    for name, rows in features.items():
        if rows.dim() != 2 or rows.shape[0] < 1 or rows.shape[1] < 2:
            raise ValueError(
                f"expected the features of {name!r} to have the shape (n, d) with d of "
                f"at least 2, got {tuple(rows.shape)}; flatten or average feature maps"
            )
    double = {name: rows.detach().cpu().double() for name, rows in features.items()}
    if not all(bool(rows.isfinite().all()) for rows in double.values()):
        nowhere = {
            name: torch.full_like(rows[:, :2], torch.nan)
            for name, rows in double.items()
        }
        return Plane(nowhere, (math.nan, math.nan))
    basis_of = torch.cat([double[name] for name in seen])
    mean = basis_of.mean(dim=0)
    _, singular, directions = torch.linalg.svd(basis_of - mean, full_matrices=False)
    plane = torch.zeros(2, mean.numel(), dtype=torch.float64)
    plane[: len(directions)] = directions[:2]
    largest = plane.gather(1, plane.abs().argmax(dim=1, keepdim=True))
    plane = torch.where(largest < 0, -plane, plane)
    variance = singular.square()
    total = float(variance.sum())
    shares = [float(v) / total if total else 0.0 for v in variance[:2]] + [0.0]
    places = {name: (rows - mean) @ plane.T for name, rows in double.items()}
    return Plane(places, (shares[0], shares[1]))
