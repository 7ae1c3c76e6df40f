"""Published accuracies and costs of the cross-domain benchmark, with their sources.

Units are those of the publications: percent, GB, seconds per epoch.
"""

from dataclasses import dataclass

DOMAINS = ("cub", "cars", "places", "plantae")

# All of them: 5 ways, 400 epochs of meta-training, 1000 test episodes.
WAYS = 5
ITERATIONS_OF_EPOCH = 100
SCALE = "224 px and 40,000 iterations"
COST_DEVICE = "Titan X"

LEAVE_ONE_OUT = "leave-one-out"
MINI_ONLY = "mini only"

_EVOGRAD = "EvoGrad (Bohdal et al., NeurIPS 2021), Table 3"
_FWT = f"FWT (Tseng et al., ICLR 2020), as quoted by {_EVOGRAD}"
_FWT_GNN = "FWT (Tseng et al., ICLR 2020), as quoted by StyleAdv (Fu et al., CVPR 2023)"
_COSTS = "EvoGrad (Bohdal et al., NeurIPS 2021), Figure 3"
_RERUN = "EvoGrad authors' rerun"


@dataclass(frozen=True)
class PublishedAccuracy:
    """A published accuracy on one unseen domain.

    Attributes:
        head, backbone, shots, method, domain: by this package's names. Learned
            through exact second-order differentiation is ``"lft-exact"``.
        note: what sets the figure apart from another one of the same method; mostly
            empty.
        training: :data:`LEAVE_ONE_OUT`: on miniImagenet and the three other domains;
            :data:`MINI_ONLY`: on miniImagenet.
        mean: in percent.
        interval: half the width of the 95 % interval over test episodes, in percent.
        source: the publication.
        ways: classes of an episode.
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
    ways: int = WAYS


@dataclass(frozen=True)
class PublishedCost:
    """What meta-training was published to cost, a mean over the four domains.

    Attributes:
        head, backbone, shots, method: as in :class:`PublishedAccuracy`.
        gigabytes: peak memory on the GPU; whether of 10⁹ or 2³⁰ bytes is not stated.
        seconds_per_epoch: of 100 iterations, validation left out.
        source: the publication.
        ways: classes of an episode.
    """

    head: str
    backbone: str
    shots: int
    method: str
    gigabytes: float
    seconds_per_epoch: float
    source: str
    ways: int = WAYS

    @property
    def seconds_per_iteration(self) -> float:
        """The published seconds per epoch, shared out."""
        return self.seconds_per_epoch / ITERATIONS_OF_EPOCH


# Shots, backbone, method, note, source; then mean and interval for each of DOMAINS.
_Row = tuple[int, str, str, str, str, tuple[tuple[float, float], ...]]

_R10, _R34 = "resnet10", "resnet34"

# fmt: off
_RELATIONNET: tuple[_Row, ...] = (
    (1, _R10, "none", "", _FWT,
     ((44.33, 0.59), (29.53, 0.45), (47.76, 0.63), (33.76, 0.52))),
    (1, _R10, "ft", "", _FWT,
     ((44.67, 0.58), (30.38, 0.47), (48.40, 0.64), (35.40, 0.53))),
    (1, _R10, "lft-exact", "", _FWT,
     ((48.38, 0.63), (32.21, 0.51), (50.74, 0.66), (35.00, 0.52))),
    (1, _R10, "lft-exact", _RERUN, _EVOGRAD,
     ((46.03, 0.60), (31.50, 0.49), (49.29, 0.65), (36.34, 0.59))),
    (1, _R10, "lft-evograd", "", _EVOGRAD,
     ((47.39, 0.61), (32.51, 0.56), (50.70, 0.66), (36.00, 0.56))),
    (1, _R34, "none", "", _EVOGRAD,
     ((45.61, 0.59), (29.54, 0.46), (48.87, 0.65), (35.03, 0.54))),
    (1, _R34, "ft", "", _EVOGRAD,
     ((45.15, 0.59), (30.28, 0.44), (49.96, 0.66), (35.69, 0.54))),
    (1, _R34, "lft-evograd", "", _EVOGRAD,
     ((45.97, 0.60), (33.21, 0.54), (50.76, 0.67), (38.23, 0.58))),
    (5, _R10, "none", "", _FWT,
     ((62.13, 0.74), (40.64, 0.54), (64.34, 0.57), (46.29, 0.56))),
    (5, _R10, "ft", "", _FWT,
     ((63.64, 0.77), (42.24, 0.57), (65.42, 0.58), (47.81, 0.51))),
    (5, _R10, "lft-exact", "", _FWT,
     ((64.99, 0.54), (43.44, 0.59), (67.35, 0.54), (50.39, 0.52))),
    (5, _R10, "lft-exact", _RERUN, _EVOGRAD,
     ((65.94, 0.56), (43.88, 0.56), (65.57, 0.57), (51.43, 0.55))),
    (5, _R10, "lft-evograd", "", _EVOGRAD,
     ((64.63, 0.56), (42.64, 0.58), (66.54, 0.57), (52.92, 0.57))),
    (5, _R34, "none", "", _EVOGRAD,
     ((63.33, 0.59), (40.50, 0.55), (64.94, 0.56), (50.20, 0.55))),
    (5, _R34, "ft", "", _EVOGRAD,
     ((62.48, 0.56), (41.06, 0.52), (64.39, 0.57), (50.08, 0.55))),
    (5, _R34, "lft-evograd", "", _EVOGRAD,
     ((66.40, 0.56), (44.25, 0.55), (67.23, 0.56), (52.47, 0.56))),
)
_GNN: tuple[_Row, ...] = (
    (1, _R10, "none", "", _FWT_GNN,
     ((45.69, 0.68), (31.79, 0.51), (53.10, 0.80), (35.60, 0.56))),
    (1, _R10, "ft", "", _FWT_GNN,
     ((47.47, 0.75), (31.61, 0.53), (55.77, 0.79), (35.95, 0.58))),
    (5, _R10, "none", "", _FWT_GNN,
     ((62.25, 0.65), (44.28, 0.63), (70.84, 0.65), (52.53, 0.59))),
    (5, _R10, "ft", "", _FWT_GNN,
     ((66.98, 0.68), (44.90, 0.64), (73.94, 0.67), (53.85, 0.62))),
)
# fmt: on


def _figures(
    head: str, training: str, rows: tuple[_Row, ...]
) -> tuple[PublishedAccuracy, ...]:
    return tuple(
        PublishedAccuracy(
            head,
            backbone,
            shots,
            method,
            note,
            training,
            domain,
            mean,
            interval,
            source,
        )
        for shots, backbone, method, note, source, figures in rows
        for domain, (mean, interval) in zip(DOMAINS, figures, strict=True)
    )


ACCURACIES = (
    *_figures("relationnet", LEAVE_ONE_OUT, _RELATIONNET),
    *_figures("gnn", MINI_ONLY, _GNN),
)

COSTS = (
    PublishedCost("relationnet", _R10, 1, "lft-evograd", 4.8, 92.3, _COSTS),
    PublishedCost("relationnet", _R10, 1, "lft-exact", 8.3, 167.3, _COSTS),
    PublishedCost("relationnet", _R10, 5, "lft-evograd", 5.3, 115.8, _COSTS),
    PublishedCost("relationnet", _R10, 5, "lft-exact", 8.5, 254.7, _COSTS),
)


def published(
    head: str, backbone: str, ways: int, shots: int, unseen: str
) -> list[PublishedAccuracy]:
    """Return the accuracies that were published for a setting.

    Args:
        head: ``"relationnet"`` is the form that is trained with a soft-max.
        backbone: of the network.
        ways: classes of an episode.
        shots: support images of a class.
        unseen: the domain, ``"cub"``, ``"cars"``, ``"places"`` or ``"plantae"``.

    Returns:
        In the order of the tables; nothing where no figure is known.
    """
    wanted = (head, backbone, ways, shots, unseen)
    return [
        one
        for one in ACCURACIES
        if (one.head, one.backbone, one.ways, one.shots, one.domain) == wanted
    ]


def published_costs(
    head: str, backbone: str, ways: int, shots: int
) -> list[PublishedCost]:
    """Return the costs that were published for a setting, as :func:`published` does."""
    wanted = (head, backbone, ways, shots)
    return [
        one for one in COSTS if (one.head, one.backbone, one.ways, one.shots) == wanted
    ]
