"""Names of estimators on the command line."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from l2l_evograd.checks import InputError
from l2l_evograd.estimators import EvoGrad, Exact, Guided
from l2l_evograd.experiments.values import shown
from l2l_evograd.oracle.comparison import DEFAULT_METHODS

# Besides the methods that compare() has by default.
_SHORT = {"exact": Exact(), "guided": Guided()}

# EvoGrad and the paper's Algorithm 1 with K candidates.
_POPULATION = re.compile(r"(evograd|evograd-paper)-([1-9][0-9]{0,5})")

_EXPECTED = (
    f"{', '.join(dict.fromkeys((*DEFAULT_METHODS, *_SHORT)))}, evograd-K or "
    f"evograd-paper-K with K candidates"
)


def estimators_by_name(
    names: Sequence[str], own: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what :func:`~l2l_evograd.oracle.compare` takes, for names.

    Args:
        names: names of estimators.
        own: estimators of the user's problem, by name; they go first.

    Raises:
        InputError: for a name that there is not, or no name.
    """
    if not names:
        raise InputError(f"expected --estimators to name some of {_EXPECTED}, got none")
    return {name: _estimator(name, own or {}) for name in names}


def _estimator(name: str, own: Mapping[str, Any]) -> Any:
    for known in (own, DEFAULT_METHODS, _SHORT):
        if name in known:
            return known[name]
    population = _POPULATION.fullmatch(name)
    if population is None:
        more = "".join(f", {each}" for each in own if isinstance(each, str))
        raise InputError(
            f"there is no estimator {shown(name)}: expected {_EXPECTED}{more}"
        )
    try:
        estimator = EvoGrad(int(population[2]))
    except ValueError as error:
        raise InputError(f"estimator {name}: {error}") from error
    return ("evolution", estimator) if "paper" in population[1] else estimator
