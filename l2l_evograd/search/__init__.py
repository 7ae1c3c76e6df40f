"""Black-box search over whole training runs, which short runs make cheaper.

:func:`search` needs only the final loss of a training run, no gradient. Its methods
propose configurations and say for how long each is trained:

==========  ================================================================
``dehb``    differential evolution within Hyperband, by the library ``dehb``
``random``  configurations drawn from the space, each trained to the end
``tpe``     Optuna's tree-structured Parzen estimator, pruned by Hyperband
==========  ================================================================

The libraries are imported when a search starts: pip install 'l2l-evograd[search]'.
"""

from l2l_evograd.search.evaluation import Evaluation
from l2l_evograd.search.record import RECORD
from l2l_evograd.search.search import METHODS, BudgetError, SearchResult, search

__all__ = [
    "METHODS",
    "RECORD",
    "BudgetError",
    "Evaluation",
    "SearchResult",
    "search",
]
