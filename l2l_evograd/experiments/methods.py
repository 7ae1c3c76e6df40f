"""A method of an experiment: how training treats the hyperparameters λ."""

from collections.abc import Iterable
from dataclasses import dataclass

from l2l_evograd.estimators import Estimator, EvoGrad

# The population of the paper's experiments.
PAPER_POPULATION = EvoGrad(
    n_model_candidates=2, sigma=1e-3, temperature=0.05, noise="rademacher"
)


@dataclass(frozen=True)
class Method:
    """A way to treat λ, the hyperparameters that an experiment is about.

    Attributes:
        name: name on the command line.
        summary: one line that describes the method to the user.
        uses_lambda: whether λ exists: feature-wise transformation layers in the
            network, or a net that weights the samples.
        update: inner update through which λ is learned, ``"gradient"`` or
            ``"evolution"``; None if λ is not learned.
        estimator: estimator of the hypergradient; None if λ is not learned.
    """

    name: str
    summary: str
    uses_lambda: bool = True
    update: str | None = None
    estimator: Estimator | None = None

    @property
    def learned(self) -> bool:
        """Whether λ is trained."""
        return self.update is not None

    @property
    def candidates(self) -> int:
        """Number of perturbed models; 0 without a population."""
        estimator = self.estimator
        return estimator.n_model_candidates if isinstance(estimator, EvoGrad) else 0


def by_name(methods: Iterable[Method]) -> dict[str, Method]:
    """Return a dictionary from names to methods, in the order of ``methods``."""
    return {method.name: method for method in methods}
