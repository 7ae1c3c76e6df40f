"""The methods that are compared, each as what sets it apart from the others."""

from dataclasses import dataclass

from l2l_evograd.estimators import Estimator, EvoGrad, Exact, Guided


@dataclass(frozen=True)
class Method:
    """A way to treat the feature-wise transformation layers in meta-training.

    Attributes:
        name: as on the command line.
        summary: for people.
        transforms: whether the network has the layers.
        update: the inner update that the layers are learned through, ``"gradient"`` or
            ``"evolution"``; None where they are not learned.
        estimator: of the hypergradient; None where there is none.
    """

    name: str
    summary: str
    transforms: bool
    update: str | None = None
    estimator: Estimator | None = None

    @property
    def candidates(self) -> int:
        """How many perturbed models there are; 0 without a population."""
        estimator = self.estimator
        return estimator.n_model_candidates if isinstance(estimator, EvoGrad) else 0

    @property
    def learned(self) -> bool:
        """Whether the layers' parameters are trained."""
        return self.update is not None


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("none", "no feature-wise transformation", transforms=False),
        Method("ft", "feature-wise transformation, fixed", transforms=True),
        Method(
            "lft-exact",
            "learned, exact second-order hypergradient",
            transforms=True,
            update="gradient",
            estimator=Exact(),
        ),
        Method(
            "lft-evograd",
            "learned, the paper's Algorithm 1",
            transforms=True,
            update="evolution",
            estimator=EvoGrad(
                n_model_candidates=2,
                sigma=1e-3,
                temperature=0.05,
                noise="rademacher",
            ),
        ),
        Method(
            "lft-guided",
            "learned, finite difference along the outer gradient",
            transforms=True,
            update="gradient",
            estimator=Guided(),
        ),
    )
}
