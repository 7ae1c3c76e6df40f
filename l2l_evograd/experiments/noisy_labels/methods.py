"""The methods of the noisy-label experiment."""

from l2l_evograd.estimators import Exact, Guided
from l2l_evograd.experiments.methods import PAPER_POPULATION, Method, by_name

METHODS = by_name(
    [
        Method("baseline", "all samples have the same weight", uses_lambda=False),
        Method("frozen", "weight net at its initial values"),
        Method(
            "exact",
            "weight net learned, exact second-order hypergradient",
            update="gradient",
            estimator=Exact(),
        ),
        Method(
            "evograd-paper",
            "weight net learned, the paper's Algorithm 1",
            update="evolution",
            estimator=PAPER_POPULATION,
        ),
        Method(
            "evograd",
            "weight net learned, the paper's population scaled to the learning rate",
            update="gradient",
            estimator=PAPER_POPULATION,
        ),
        Method(
            "guided",
            "weight net learned, finite difference along the outer gradient",
            update="gradient",
            # On ResNet-32, the forward scheme has the same cosine to the exact
            # hypergradient as the central scheme, 1.000. A step takes 85 % of the time.
            estimator=Guided(scheme="forward"),
        ),
    ]
)
