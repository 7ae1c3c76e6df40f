"""``hypergradcheck``: check a hypergradient in a test, as gradcheck does a gradient."""

from torch import nn

from l2l_evograd.checks import (
    check_count,
    check_not_negative,
    check_positive,
    check_seed,
)
from l2l_evograd.estimators import Estimator, EvoGrad, resolve_estimator
from l2l_evograd.hyperparameters import Hyperparameters
from l2l_evograd.oracle.fidelity import flat
from l2l_evograd.oracle.tolerance import (
    LEAST_DRAWS,
    lowest_precision,
    quantities,
    usual_rtol,
)
from l2l_evograd.oracle.unrolled import Loss, Unrolled
from l2l_evograd.oracle.untouched import Untouched
from l2l_evograd.oracle.verification import Verification


class HypergradcheckError(AssertionError):
    """A hypergradient differs from the exact answer, or the check shows nothing.

    It is an ``AssertionError``, as in ``torch.testing.assert_close``, so that test
    runners report a failure and not a crash. The ``GradcheckError`` of
    ``torch.autograd.gradcheck`` is a ``RuntimeError``, but losses may raise a
    ``RuntimeError`` for other reasons.
    """


def hypergradcheck(
    inner_loss: Loss,
    outer_loss: Loss,
    model: nn.Module,
    hyperparameters: Hyperparameters,
    *,
    lr: float | None = None,
    update: str = "gradient",
    estimator: Estimator | str | None = None,
    steps: int = 1,
    draws: int = 256,
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
    allow_unused: bool = False,
) -> bool:
    """Check ``hypergradient()`` against the exact answer, on the user's own losses.

    With g = dL(θ_T(λ), λ)/dλ through T unrolled steps, and its estimate ĝ, it checks

        |ĝ_i − g_i| ≤ atol + rtol · max_j |g_j|    for every entry i,

    where the maximum is over the entries of the same hyperparameter. g comes from the
    library ``higher`` if it is installed, and from double backward otherwise. With
    ``update="evolution"``, g is the derivative of Algorithm 1 at the perturbations that
    ĝ was drawn with, so nothing is random there.

    ``EvoGrad`` with ``update="gradient"`` is random: ĝ_i is then the mean of ``draws``
    estimates, and 4 of its standard errors are added to the allowed difference. With
    more than 15 entries, more standard errors are added, so that a correct estimate
    fails with a probability of at most about 1 in 1,000. The projection ĝ·g/‖g‖ is
    compared with ‖g‖ in the same way. The perturbations follow from ``seed``: the same
    call has the same outcome.

    With several steps, the curvature between the steps is kept (``first_order=False``).
    Without it, the exact answer is not the expectation of any estimate.

    A check that an answer of 0 would also pass shows nothing, so it fails.

    Args:
        inner_loss: ℓ, called with a module that stands for the model; returns a scalar.
        outer_loss: L, likewise.
        model: the module; its parameters that require grad and are not λ are θ. In
            float64, rounding hides the fewest errors.
        hyperparameters: λ: tensors, modules or names of parameters; inside or outside
            the model.
        lr: η, positive; for ``update="gradient"``.
        update: ``"gradient"`` or ``"evolution"``.
        estimator: as for :class:`~l2l_evograd.EvoGradMetaOptimizer`.
        steps: T.
        draws: number of estimates if they are random, at least 30.
        rtol: None: 1e-7 in float64, 1e-3 in float32 and 0.1 in lower precision; for
            ``Guided`` and ``EvoGrad``, plus their truncation and rounding errors:
            10 h² + 100 eps/h (central), 10 h + 100 eps/h (forward),
            10 σ² + 100 eps/σ.
        atol: None: ``rtol`` times a thousandth of the largest |g_j| of all λ.
        seed: seed of the perturbations.
        allow_unused: whether a hyperparameter may have no effect.

    Returns:
        True. The model, its buffers, every ``.grad`` and the global random state are
        unchanged, also if an error is raised.

    Raises:
        HypergradcheckError: if the check fails. It is an ``AssertionError`` that names
            the worst entry and says what to do.
        TypeError: for arguments of the wrong kind.
        ValueError: for values out of range, hyperparameters that are not found or not
            used, losses that are not finite scalars, or an exact answer of 0.

    Cost:
        T second-order steps held in memory at once, and one call of
        ``hypergradient()``, or ``draws`` calls if it is random. On failure, the exact
        answer once more, and one call with ``Exact()``.

    Source: modelled on ``torch.autograd.gradcheck``.
    """
    chosen = resolve_estimator(estimator, update)
    if update == "evolution" and isinstance(chosen, EvoGrad):
        lr = chosen.learning_rate  # not used, but has to be a number
    problem = Unrolled(
        model,
        inner_loss,
        outer_loss,
        hyperparameters,
        check_positive(lr, "lr"),
        steps,
    )
    if rtol is None:
        tensors = [*problem.weights, *problem.hyperparameters]
        rtol = usual_rtol(chosen, update, lowest_precision(tensors))
    check = Verification(
        problem,
        update,
        chosen,
        check_count(draws, "draws", LEAST_DRAWS),
        check_not_negative(rtol, "rtol"),
        None if atol is None else check_not_negative(atol, "atol"),
        check_seed(seed),
        allow_unused,
    )
    untouched = Untouched(model, problem.hyperparameters)
    with untouched.watch("the losses and the estimator"):
        exact = check.exact()
        margin = check.margin(exact)
        compared = quantities(check.estimates(), flat(exact), margin, check.random)
    if bool(compared.wrong.any()):
        raise HypergradcheckError(
            f"{check.difference(compared)}\n{check.advice(exact, margin)}"
        )
    if compared.undecided:
        raise HypergradcheckError(check.indecision(compared))
    return True
