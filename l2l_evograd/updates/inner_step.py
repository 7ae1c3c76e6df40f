"""One inner step: which update, how often it is checked, when it is computed again.

``adapt``, ``hypergradient`` and ``bilevel_step`` share this code.
"""

import functools
import weakref
from collections.abc import Sequence
from types import CodeType
from typing import Any

from torch import Tensor, nn

from l2l_evograd.checks import NotFiniteError, check_choice, check_count, check_loss
from l2l_evograd.distributed import Processes
from l2l_evograd.estimators import EvoGrad, Exact, resolve_estimator
from l2l_evograd.finite import GRADIENT, check_range
from l2l_evograd.hyperparameters import check_no_hooks
from l2l_evograd.replay.autograd_graph import graph_bytes
from l2l_evograd.replay.tensor import ordinary_functions
from l2l_evograd.updates.evolution import Evolution
from l2l_evograd.updates.gradient import Gradient
from l2l_evograd.updates.situation import Situation, Stepped

Update = Gradient | Evolution

#: Bytes of kept graphs above which ``memory="auto"`` computes steps again.
MEMORY_LIMIT = 256 * 2**20

_FIRST = 3
_EVERY = 100


def make_update(
    update: str, estimator: object, processes: Processes | None = None
) -> Update:
    """Return the update that the public arguments describe.

    Raises:
        ValueError, TypeError: as :func:`~l2l_evograd.estimators.resolve_estimator`.
        ValueError: if the same processes would split both data and candidates.
    """
    resolved = resolve_estimator(estimator, update)
    processes = processes or Processes()
    if isinstance(resolved, EvoGrad):
        processes.check_apart(resolved.processes)
        if update == "evolution":
            return Evolution(resolved, processes)
    return Gradient(resolved, processes)


def inner_step(update: Update, now: Situation) -> Stepped:
    """Check the loss and move the weights.

    Raises:
        TypeError, ValueError: if the loss is not a finite scalar tensor, does not
            require grad, or does not use some of the weights; if a hyperparameter has a
            gradient hook.
        LostHistory: if the loss has to be computed again and cannot be.
        Unrepeatable: if the loss, computed again, gives a different result.
    """
    estimator = update.estimator
    if not (estimator.exact and not now.first_order):  # else autograd does it all
        check_no_hooks(now.hyperparameters)
    with ordinary_functions():
        # A process that stops alone would leave the others waiting: what is averaged
        # over processes is looked at after that.
        alone = update.processes.group is None
        check_loss(now.value, wait=now.watch is not None and now.watch.wait, look=alone)
        if isinstance(now.lr, float):
            check_range(now.lr, now.params, "lr")
        stepped = update.step(now)
        _look(now, stepped)
        return stepped


def _look(now: Situation, stepped: Stepped) -> None:
    """Look at a step before it is used.

    The new weights are finite only if the old ones, the rates and the gradients are.

    Raises:
        NotFiniteError: if one is not; says which.
    """
    if now.watch is None:
        return
    try:
        now.watch.look(
            {
                "the hyperparameters": now.hyperparameters,
                "the updated weights": stepped.params,
            }
        )
    except NotFiniteError:
        rates = [] if isinstance(now.lr, float) else now.lr
        now.watch.look({"the weights": now.params})
        now.watch.look({"the learning rates": rates})
        now.watch.look({GRADIENT: stepped.gradients})
        raise


def needs_a_record(
    update: Update,
    hyperparameters: Sequence[Tensor],
    first_order: bool,
    keeping: "Keeping",
    history: "History",
) -> bool:
    """Say whether the inner loss has to be recorded while it is computed."""
    if isinstance(update, Evolution):
        return True
    again = keeping.again and not first_order
    if not hyperparameters:
        return again
    estimator = update.estimator
    if not isinstance(estimator, Exact):
        return True
    forward = estimator.goes_forward(not first_order, history.size, keeping.keeps)
    return keeping.again or forward


class History:
    """What earlier steps with the same inner loss have shown.

    It decides at which steps a repeated inner loss is compared with the original.

    Args:
        check: ``"first"``: at the first 3 steps and at every 100th; ``"always"``;
            ``"never"``.

    Attributes:
        size: bytes on the graph of the last inner loss, or 0 if its operations have no
            forward derivative; None if no step has looked.

    Raises:
        ValueError: for any other value.
    """

    _of_code: "weakref.WeakKeyDictionary[CodeType | type, _OfOwner]" = (
        weakref.WeakKeyDictionary()
    )

    def __init__(self, check: str) -> None:
        check_choice(check, ("first", "always", "never"), "check")
        self._check = check
        self._steps = 0
        self.size: int | None = None

    @classmethod
    def of(
        cls, check: str, loss: Any, problem: Any, model: nn.Module | None = None
    ) -> "History":
        """Return the history of a loss function, over all calls.

        A function that is defined in a loop is a new object each time, but its code
        object is the same. The count therefore belongs to the code object.

        Args:
            check: as for the class.
            loss: the function.
            problem: hashable key of the problem; each problem has its own count.
            model: the module that the problem is about, if there is one. A new one has
                its own count, also where it gets the ``id()`` of one that is gone.
        """
        while isinstance(loss, functools.partial):
            loss = loss.func
        code = getattr(loss, "__code__", type(loss))
        of_code = cls._of_code.setdefault(code, weakref.WeakKeyDictionary())
        of_owner = of_code.setdefault(code if model is None else model, {})
        return of_owner.setdefault((check, problem), cls(check))

    def due(self) -> bool:
        """Count one step, and say whether to check it."""
        self._steps += 1
        if self._check == "first":
            return self._steps <= _FIRST or self._steps % _EVERY == 0
        return self._check == "always"

    def note(self, stepped: Stepped) -> None:
        """Remember the size of the graph of a step's inner loss."""
        if stepped.size is not None:
            self.size = stepped.size


# Histories of one loss function: of modules while they live, or, under the function's
# own code, of problems without a module.
_OfOwner = weakref.WeakKeyDictionary[
    nn.Module | CodeType | type, dict[tuple[str, Any], History]
]


class Keeping:
    """Decide whether the graph of a step is kept or the step is computed again.

    Args:
        memory: ``"auto"``: keep graphs until they exceed ``limit``, then compute steps
            again; ``"graph"``: keep all; ``"recompute"``: compute every step again.
        limit: in bytes.

    Raises:
        ValueError: for any other value.
    """

    def __init__(self, memory: str, limit: int) -> None:
        check_choice(memory, ("auto", "graph", "recompute"), "memory")
        limit = check_count(limit, "memory_limit, a number of bytes,", least=0)
        self.memory = memory
        self.limit = limit
        self.insist = memory == "recompute"
        self.keeps = memory == "graph"
        self.again = memory == "recompute"
        self._kept = 0

    def fresh(self) -> "Keeping":
        """Return the same policy with no graph counted yet, for another learner."""
        return Keeping(self.memory, self.limit)

    def release(self) -> None:
        """Count from zero, because the graphs of earlier steps were freed."""
        self._kept = 0

    def note(self, stepped: Stepped) -> None:
        """Add the size of the graph that a step keeps to the total.

        Cost: one walk over the graph of the step.
        """
        if self.memory != "auto" or self.again or not stepped.graph:
            return
        ends = [t for t in stepped.graph if t is not None]
        self._kept += graph_bytes(ends, stepped.before)
        self.again = self._kept > self.limit
