"""Exact hypergradients, and how close an estimate comes to them.

:func:`exact_hypergradient` differentiates through unrolled gradient steps with the
library ``higher``, which shares no code with this package's estimators.
:func:`compare` compares estimators with it on the user's own problem, in a table.
:func:`hypergradcheck` does the same in a test, and passes or raises an error.
"""

from l2l_evograd.oracle.comparison import Comparison, compare
from l2l_evograd.oracle.exact import exact_hypergradient
from l2l_evograd.oracle.fidelity import Fidelity, Figure
from l2l_evograd.oracle.hypergradcheck import HypergradcheckError, hypergradcheck
from l2l_evograd.oracle.measurement import Descent, MethodRecord

__all__ = [
    "compare",
    "exact_hypergradient",
    "hypergradcheck",
    # What compare() returns
    "Comparison",
    "Descent",
    "Fidelity",
    "Figure",
    "MethodRecord",
    # What hypergradcheck() raises
    "HypergradcheckError",
]
