"""Published accuracies and costs of the cross-domain benchmark, with their sources.

The numbers are in two CSV files beside this module, in the units of the publications:
percent, GB, seconds per epoch. All of them are for 5 ways, 400 epochs of meta-training
and 1000 test episodes.
"""

import csv
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any, TypeVar

ITERATIONS_OF_EPOCH = 100
SCALE = "224 px and 40,000 iterations"
COST_DEVICE = "Titan X"

_Figure = TypeVar("_Figure", "PublishedAccuracy", "PublishedCost")


@dataclass(frozen=True)
class PublishedAccuracy:
    """A published accuracy on one unseen domain.

    Attributes:
        head, backbone, shots, method, domain: names as in this package.
            ``"lft-exact"`` is learned through exact second-order differentiation.
        note: difference to another result of the same method; mostly empty.
        training: "leave-one-out": training on miniImagenet and the three other
            domains; "mini only": training on miniImagenet.
        mean: mean accuracy in percent.
        interval: half the width of the 95 % interval over test episodes, in percent.
        source: the publication.
        ways: number of classes of an episode.
    """

    head: str
    backbone: str
    shots: int
    method: str
    note: str
    training: str
    domain: str
    mean: float
    interval: float
    source: str
    ways: int


@dataclass(frozen=True)
class PublishedCost:
    """The published cost of meta-training, averaged over the four domains.

    Attributes:
        head, backbone, shots, method: as in :class:`PublishedAccuracy`.
        gigabytes: peak memory on the GPU in GB. The publication does not state whether
            a GB is 10⁹ or 2³⁰ bytes.
        seconds_per_epoch: seconds for an epoch of 100 iterations, without validation.
        source: the publication.
        ways: number of classes of an episode.
    """

    head: str
    backbone: str
    shots: int
    method: str
    gigabytes: float
    seconds_per_epoch: float
    source: str
    ways: int

    @property
    def seconds_per_iteration(self) -> float:
        """The published seconds per epoch, divided by the iterations of an epoch."""
        return self.seconds_per_epoch / ITERATIONS_OF_EPOCH


@cache
def accuracies() -> tuple[PublishedAccuracy, ...]:
    """Return all published accuracies."""
    return _read(PublishedAccuracy, "published_accuracies.csv")


@cache
def costs() -> tuple[PublishedCost, ...]:
    """Return all published costs."""
    return _read(PublishedCost, "published_costs.csv")


def published(
    head: str, backbone: str, ways: int, shots: int, unseen: str
) -> list[PublishedAccuracy]:
    """Return the accuracies that were published for a setting.

    Args:
        head: head of the network; ``"relationnet"`` is the form with a soft-max loss.
        backbone: encoder of the network.
        ways: number of classes of an episode.
        shots: number of support images of each class.
        unseen: the domain, ``"cub"``, ``"cars"``, ``"places"`` or ``"plantae"``.

    Returns:
        The accuracies in the order of the file; empty if none is known.
    """
    wanted = (head, backbone, ways, shots, unseen)
    return [
        one
        for one in accuracies()
        if (one.head, one.backbone, one.ways, one.shots, one.domain) == wanted
    ]


def published_costs(
    head: str, backbone: str, ways: int, shots: int
) -> list[PublishedCost]:
    """Return the costs that were published for a setting; see :func:`published`."""
    wanted = (head, backbone, ways, shots)
    return [
        one
        for one in costs()
        if (one.head, one.backbone, one.ways, one.shots) == wanted
    ]


def _read(kind: type[_Figure], name: str) -> tuple[_Figure, ...]:
    """Return the rows of a file. Its columns are the fields of ``kind``."""
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    convert: dict[str, Any] = {field.name: field.type for field in fields(kind)}
    return tuple(
        kind(**{column: convert[column](value) for column, value in row.items()})
        for row in csv.DictReader(text.splitlines())
    )
