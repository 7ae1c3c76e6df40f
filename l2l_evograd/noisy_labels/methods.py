"""The methods that are compared, each as what sets it apart from the others."""

from dataclasses import dataclass

from l2l_evograd.estimators import Estimator, EvoGrad, Exact, Guided


@dataclass(frozen=True)
class Method:
    """A way to treat the weights of the training samples.

    Attributes:
        name: as on the command line.
        summary: for people.
        weighted: whether a weight net weights the samples.
        update: the inner update that the weight net is learned through,
            ``"gradient"`` or ``"evolution"``; None where it is not learned.
        estimator: of the hypergradient; None where there is none.
    """

    name: str
    summary: str
    weighted: bool = True
    update: str | None = None
    estimator: Estimator | None = None

    @property
    def learned(self) -> bool:
        """Whether the weight net is trained."""
        return self.update is not None


# The population of the paper's experiments.
_POPULATION = EvoGrad(
    n_model_candidates=2, sigma=1e-3, temperature=0.05, noise="rademacher"
)

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("baseline", "all samples weigh the same", weighted=False),
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
            estimator=_POPULATION,
        ),
        Method(
            "evograd",
            "weight net learned, the paper's population scaled to the learning rate",
            update="gradient",
            estimator=_POPULATION,
        ),
        Method(
            "guided",
            "weight net learned, finite difference along the outer gradient",
            update="gradient",
            # On ResNet-32 the same cosine to the exact hypergradient as the central
            # scheme, 1.000, in 85 % of the time of a step.
            estimator=Guided(scheme="forward"),
        ),
    )
}
