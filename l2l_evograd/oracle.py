"""Exact hypergradients, and how near to them an estimate comes.

:func:`exact_hypergradient` differentiates through unrolled gradient steps with the
library ``higher``, which shares no code with this package's estimators.
:func:`compare` holds any estimators against it on a problem of one's own.
"""

from torch import Tensor, nn

from l2l_evograd.comparison import Comparison, compare
from l2l_evograd.fidelity import Fidelity, Figure
from l2l_evograd.hyperparameters import Hyperparameters
from l2l_evograd.trial import Descent, MethodRecord
from l2l_evograd.unrolled import Loss, Unrolled

__all__ = [
    "compare",
    "exact_hypergradient",
    # What compare() returns
    "Comparison",
    "Descent",
    "Fidelity",
    "Figure",
    "MethodRecord",
]


def exact_hypergradient(
    model: nn.Module,
    inner_loss: Loss,
    outer_loss: Loss,
    hyperparameters: Hyperparameters,
    lr: float,
    steps: int = 1,
    allow_unused: bool = False,
) -> list[Tensor]:
    """Return dL(θ_T, λ)/dλ with θ_{t+1} = θ_t − η ∇_θ ℓ(θ_t, λ), exactly.

    Includes what L depends on λ by itself. The model, its buffers, every ``.grad`` and
    the global random state are as before afterwards; the losses see the random state
    that was found, so that a second call gives the same answer.

    Args:
        model: the module; its parameters that require grad and are not λ are θ.
        inner_loss: ℓ, a function of a module that stands for the model, to a scalar.
        outer_loss: L, likewise.
        hyperparameters: λ: a tensor, a module, a parameter's name in the model, or
            several of these in a list or dictionary; inside or outside the model.
        lr: η.
        steps: T.
        allow_unused: give zeros for a hyperparameter that the result does not depend
            on, instead of an error.

    Returns:
        The derivatives, one tensor for each of λ, of its shape.

    Raises:
        ImportError: if ``higher`` is not installed.
        TypeError: for a model that is no module, or a loss that cannot be called.
        ValueError: for hyperparameters that are not found, not used, do not require
            grad or are no leaves; for losses that are not finite scalars; for an inner
            loss that does not use the module it is given; for a learning rate that is
            not positive and finite, or fewer than one step.

    Cost:
        T second-order steps held in memory at once. Attention runs on the math kernel
        and recurrent layers without cuDNN, since the others have no second derivative.

    Source: Grefenstette et al., "Generalized inner loop meta-learning", 2019
    (``higher``); Franceschi et al., ICML 2017, for reverse-mode hypergradients.
    """
    problem = Unrolled(model, inner_loss, outer_loss, hyperparameters, lr, steps)
    return problem.hypergradient(allow_unused)
