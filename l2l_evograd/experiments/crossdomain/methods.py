"""The methods of the cross-domain experiment."""

from l2l_evograd.estimators import Exact, Guided
from l2l_evograd.experiments.methods import PAPER_POPULATION, Method, by_name

METHODS = by_name(
    [
        Method("none", "no feature-wise transformation", uses_lambda=False),
        Method("ft", "feature-wise transformation, fixed"),
        Method(
            "lft-exact",
            "learned, exact second-order hypergradient",
            update="gradient",
            estimator=Exact(),
        ),
        Method(
            "lft-evograd",
            "learned, the paper's Algorithm 1",
            update="evolution",
            estimator=PAPER_POPULATION,
        ),
        Method(
            "lft-guided",
            "learned, finite difference along the outer gradient",
            update="gradient",
            estimator=Guided(),
        ),
    ]
)
