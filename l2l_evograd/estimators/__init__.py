"""Estimators of ∂D/∂λ, the term that every hypergradient rests on.

θ are the weights, λ the hyperparameters, ℓ(θ, λ) is the inner loss and v = ∂L/∂θ_new
the cotangent of the updated weights. D = v·∇_θ ℓ(θ, λ) is the directional derivative of
the inner loss along v. The hypergradient through one gradient step with learning rate η
is −η ∂D/∂λ.

=================  =================================================  =================
``EvoGrad``        Σ_k (s_k − s̄) ∂_λ ℓ(θ + ε_k) / ((K − 1) σ²)        K passes
``Guided``         ‖v‖ [∂_λ ℓ(θ + h v̂) − ∂_λ ℓ(θ − h v̂)] / 2h         2 passes, or 1
``Exact``          ∂_λ (v·∇_θ ℓ)                                      double backward
=================  =================================================  =================

Here s_k = v·ε_k and v̂ = v/‖v‖. A pass is one forward pass and one backward pass to λ.
"""

from l2l_evograd.checks import check_choice
from l2l_evograd.estimators.base import Estimator, Question
from l2l_evograd.estimators.evograd import EvoGrad
from l2l_evograd.estimators.exact import Exact
from l2l_evograd.estimators.guided import Guided

__all__ = [
    "Estimator",
    "EvoGrad",
    "Exact",
    "Guided",
    "Question",
    "resolve_estimator",
]

_BY_NAME: dict[str, type[EvoGrad] | type[Guided] | type[Exact]] = {
    "evograd": EvoGrad,
    "guided": Guided,
    "exact": Exact,
}


def resolve_estimator(estimator: object, update: str) -> Estimator:
    """Return the estimator that an object, a name or None stands for.

    Raises:
        ValueError: for an unknown name, or an estimator that ``update`` cannot use.
        TypeError: for any other type.
    """
    check_choice(update, ("gradient", "evolution"), "update")
    if estimator is None:
        return EvoGrad() if update == "evolution" else Guided()
    if isinstance(estimator, str):
        check_choice(estimator, tuple(_BY_NAME), "estimator")
        estimator = _BY_NAME[estimator]()
    if not isinstance(estimator, Estimator):
        raise TypeError(
            f"expected estimator to be EvoGrad(...), Guided(...), Exact() or one of "
            f"the names {', '.join(_BY_NAME)}, got {estimator!r}"
        )
    if update == "evolution" and not isinstance(estimator, EvoGrad):
        raise ValueError(
            f"update='evolution' is the paper's Algorithm 1 and takes a population: "
            f"expected estimator=EvoGrad(...), got {estimator!r}; use "
            f"update='gradient' with this estimator"
        )
    return estimator
