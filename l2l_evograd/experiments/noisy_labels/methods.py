"""The methods of the noisy-label experiment, and the two ways to weigh samples."""

from l2l_evograd.checks import InputError
from l2l_evograd.estimators import EvoGrad, Exact, Guided
from l2l_evograd.experiments.methods import PAPER_POPULATION, Method, by_name

# One weight for each sample of a batch, or a net that maps losses to weights.
WEIGHTINGS = ("samples", "net")

RANDOM, FROZEN = "random", "frozen"

METHODS = by_name(
    [
        Method("baseline", "all samples have the same weight", uses_lambda=False),
        Method(RANDOM, "random weights, drawn for each batch", uses_lambda=False),
        Method(FROZEN, "weight net at its initial values"),
        Method(
            "exact",
            "learned, exact second-order hypergradient",
            update="gradient",
            estimator=Exact(),
        ),
        Method(
            "evograd-paper",
            "learned, the paper's Algorithm 1",
            update="evolution",
            estimator=PAPER_POPULATION,
        ),
        Method(
            "evograd",
            "learned, the paper's population scaled to the learning rate",
            update="gradient",
            estimator=PAPER_POPULATION,
        ),
        Method(
            "evograd-8",
            "learned, a population of 8",
            update="gradient",
            estimator=EvoGrad(8),
        ),
        Method(
            "evograd-32",
            "learned, a population of 32",
            update="gradient",
            estimator=EvoGrad(32),
        ),
        Method(
            "guided",
            "learned, finite difference along the outer gradient",
            update="gradient",
            # On ResNet-32, the forward scheme has the same cosine to the exact
            # hypergradient as the central scheme, 1.000. A step takes 85 % of the time.
            estimator=Guided(scheme="forward"),
        ),
    ]
)


def check_weighting(method: Method, weighting: str) -> None:
    """Refuse a method that keeps a weight net where there is none.

    Raises:
        InputError: names other methods.
    """
    if weighting == "samples" and method.uses_lambda and not method.learned:
        raise InputError(
            f"{method.name!r} keeps a weight net at its initial values, and weighting "
            f"'samples' has no net: expected other methods, such as {RANDOM!r}, or "
            f"weighting 'net'"
        )


def usual_methods(weighting: str) -> tuple[str, ...]:
    """Return the names of the methods that a run compares if the user names none.

    Args:
        weighting: a name in :data:`WEIGHTINGS`.
    """
    if weighting == "samples":
        return tuple(name for name in METHODS if name != FROZEN)
    # A net learns from many batches, so that large populations cost much for little.
    return tuple(n for n in METHODS if n not in ("evograd-8", "evograd-32"))
