"""Exact hypergradients, and how near to them an estimate comes.

:func:`exact_hypergradient` differentiates through unrolled gradient steps with the
library ``higher``, which shares no code with this package's estimators.
:func:`compare` holds any estimators against it on a problem of one's own, as a table.
:func:`hypergradcheck` does so in a test, and passes or raises.
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
