"""One inner step: which update, how often it is checked, when it is computed again.

What ``adapt``, ``hypergradient`` and ``bilevel_step`` have in common.
"""

import functools
import hashlib
import weakref
from collections.abc import Sequence
from types import CodeType
from typing import Any

import torch
from torch import Tensor

from l2l_evograd.checks import check_choice, check_loss
from l2l_evograd.distributed import Processes
from l2l_evograd.estimators import EvoGrad, resolve_estimator
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
        ValueError: if the same processes are to share out data and candidates.
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
        TypeError, ValueError: for a loss that is no finite scalar tensor, does not
            require grad, or does not use some of the weights.
        LostHistory: if it has to be computed again and cannot be.
        Unrepeatable: if that gives something else.
    """
    with ordinary_functions():
        check_loss(now.value)
        return update.step(now)


def needs_a_record(
    update: Update, hyperparameters: Sequence[Tensor], again: bool
) -> bool:
    """Say whether the inner loss has to be recorded while it is computed."""
    if isinstance(update, Evolution):
        return True
    return again or bool(hyperparameters) and not update.estimator.exact


def default_generator() -> torch.Generator:
    """Return a generator that follows ``torch.manual_seed`` and draws nothing from it.

    The global random state stays as it is; runs that seed torch are repeatable. The
    seed is a digest of that state, so it differs wherever torch's own draws would.
    """
    state = torch.get_rng_state()
    digest = hashlib.blake2b(bytes(state.tolist()), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


class Checks:
    """When a repetition is held against what was computed at first.

    Args:
        check: ``"first"``: at the first 3 steps and at every 100th; ``"always"``;
            ``"never"``.

    Raises:
        ValueError: for anything else.
    """

    _of_code: weakref.WeakKeyDictionary[CodeType | type, dict[Any, "Checks"]] = (
        weakref.WeakKeyDictionary()
    )

    def __init__(self, check: str) -> None:
        check_choice(check, ("first", "always", "never"), "check")
        self._check = check
        self._steps = 0

    @classmethod
    def of(cls, check: str, loss: Any, problem: Any) -> "Checks":
        """Return those that belong to a loss function, counted over all its calls.

        A function that is written in a loop is a new one each time; its code is not.

        Args:
            check: as for the class.
            loss: the function.
            problem: what tells its problem from others, hashable.
        """
        if check != "first":
            return cls(check)
        while isinstance(loss, functools.partial):
            loss = loss.func
        code = getattr(loss, "__code__", type(loss))
        return cls._of_code.setdefault(code, {}).setdefault(problem, cls(check))

    def due(self) -> bool:
        """Say whether the present step is to be checked."""
        self._steps += 1
        if self._check == "first":
            return self._steps <= _FIRST or self._steps % _EVERY == 0
        return self._check == "always"


class Keeping:
    """Whether the graphs of steps are kept, or the steps computed again.

    Args:
        memory: ``"auto"``: kept until they exceed ``limit``; ``"graph"``: kept;
            ``"recompute"``: computed again.
        limit: bytes.

    Raises:
        ValueError: for anything else.
    """

    def __init__(self, memory: str, limit: int) -> None:
        check_choice(memory, ("auto", "graph", "recompute"), "memory")
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
            raise ValueError(
                f"expected memory_limit to be a number of bytes of at least 0, got "
                f"{limit!r}"
            )
        self.memory = memory
        self.limit = limit
        self.insist = memory == "recompute"
        self.again = memory == "recompute"
        self._kept = 0

    def fresh(self) -> "Keeping":
        """Return the same with nothing kept yet, for another learner."""
        return Keeping(self.memory, self.limit)

    def note(self, stepped: Stepped) -> None:
        """Count the graph that a step keeps.

        Cost: one walk over the graph.
        """
        if self.memory != "auto" or self.again or not stepped.graph:
            return
        self._kept += graph_bytes([t for t in stepped.graph if t is not None])
        self.again = self._kept > self.limit
