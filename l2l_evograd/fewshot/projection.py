"""Features of all domains laid into one plane, to be looked at."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from l2l_evograd.fewshot.domains import Dataset, Domain
from l2l_evograd.fewshot.evaluation import evaluating
from l2l_evograd.fewshot.features import averaged
from l2l_evograd.fewshot.heads import FewShotModel
from l2l_evograd.fewshot.plane import Plane, principal_plane

# Images of a domain, spread evenly over its novel split.
SHOWN_IMAGES = 60


def projected_features(
    model: FewShotModel,
    domains: Mapping[str, Domain],
    unseen: str,
    device: torch.device,
) -> dict[str, Any]:
    """Return where a model's features of novel classes lie in a plane.

    Args:
        model: whose encoder is asked.
        domains: by name.
        unseen: the domain that has no say in the plane.
        device: where the model is.

    Returns:
        ``"points"``: domain -> places, the seen domains first; ``"shares"``: of the
        seen domains' variance along each axis. As JSON knows them; empty where the
        features are not all finite.

    Cost: one forward pass for each of 60 images a domain.
    """
    names = sorted(domains, key=lambda name: (name == unseen, name))
    found = {
        name: _features(model, domains[name].splits["novel"], device) for name in names
    }
    points, shares = principal_plane(found, unseen)
    if not all(bool(place.isfinite().all()) for place in points.values()):
        return {}
    return {
        "points": {name: _rounded(place) for name, place in points.items()},
        "shares": list(shares),
    }


def plane_of(projected: Mapping[str, Any]) -> Plane:
    """Return the plane that :func:`projected_features` wrote down."""
    places = {name: torch.tensor(rows) for name, rows in projected["points"].items()}
    first, second = projected["shares"]
    return Plane(places, (first, second))


def _features(model: FewShotModel, dataset: Dataset, device: torch.device) -> Tensor:
    count = min(SHOWN_IMAGES, len(dataset))
    chosen = [index * len(dataset) // count for index in range(count)]
    images = torch.stack([dataset[index][0] for index in chosen])
    with evaluating(model):
        return averaged(model.embed(images.to(device))).cpu()


def _rounded(places: Tensor) -> Sequence[Sequence[float]]:
    return [[round(float(x), 4) for x in place] for place in places]
