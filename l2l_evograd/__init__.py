"""EvoGrad for learn2learn: hypergradients without second-order differentiation."""

from l2l_evograd.algorithm import EvoGradMetaOptimizer
from l2l_evograd.bilevel import (
    BilevelStep,
    Hypergradient,
    bilevel_step,
    hypergradient,
)
from l2l_evograd.estimators import EvoGrad, Exact, Guided

__all__ = [
    "EvoGradMetaOptimizer",
    # Estimators of the hypergradient
    "EvoGrad",
    "Exact",
    "Guided",
    # Bilevel problems without learn2learn
    "BilevelStep",
    "Hypergradient",
    "bilevel_step",
    "hypergradient",
]

__version__ = "0.1.0"
