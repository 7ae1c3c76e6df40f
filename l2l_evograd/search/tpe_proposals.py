"""The control: Optuna's TPE sampler with its Hyperband pruner."""

import copy
import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
)
from optuna.trial import Trial, TrialState

from l2l_evograd.search.proposals import Proposal, check_without_forbidden
from l2l_evograd.search.space import Space
from l2l_evograd.seeds import derive_seed


class _Training(NamedTuple):
    trial: Trial
    level: int


class TPEProposals:
    """Tree-structured Parzen estimator whose trials are stopped early.

    Optuna's pruner looks at one training run while it goes on. Here every run starts
    anew, so that a trial is trained at the first fidelity of its bracket, then at the
    next if the pruner lets it, and each of these runs is charged in full.

    The first ten trials of each bracket are random, as the sampler's defaults are.

    Args:
        space: the space.
        fidelities: the lowest first; each is η times the one before, rounded. With one
            only, nothing is pruned.
        eta: η.
        seed: of the sampler.

    Raises:
        InputError: if the space has forbidden clauses.
    """

    def __init__(
        self, space: Space, fidelities: Sequence[int], eta: int, seed: int
    ) -> None:
        check_without_forbidden("tpe", space.forbidden)
        self._space = space
        self._fidelities = list(fidelities)
        self._eta = eta
        self.least_budget = sum(fidelities)
        self._trained: deque[_Training] = deque()  # to be trained at the next fidelity
        self._distributions = {
            str(number): _distribution(choices)
            for number, choices in enumerate(space.choices)
        }
        self._study = _study(len(fidelities), eta, derive_seed("tpe", seed) % 2**32)

    def ask(self) -> Proposal:
        """Return the next configuration to train: a trial that goes on comes first."""
        training = self._trained.popleft() if self._trained else self._new()
        point = [
            # The middle of a choice's part of [0, 1].
            (training.trial.params[name] + 0.5) / choices
            if choices
            else training.trial.params[name]
            for name, choices in zip(
                self._distributions, self._space.choices, strict=True
            )
        ]
        fidelity = self._fidelities[training.level]
        return Proposal(self._space.at(point), fidelity, training)

    def tell(self, proposal: Proposal, loss: float) -> None:
        """Take the loss of a proposal; NaN or infinite: its run diverged."""
        trial, level = proposal.token
        value = loss if math.isfinite(loss) else math.nan  # always pruned
        if level == len(self._fidelities) - 1 and math.isfinite(value):
            self._study.tell(trial, value)
            return
        trial.report(value, self._step(level))
        if math.isnan(value) or trial.should_prune():
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._trained.append(_Training(trial, level + 1))

    def _new(self) -> _Training:
        trial = self._study.ask(self._distributions)
        trial.should_prune()  # without a loss: only lets the pruner make its brackets
        return _Training(trial, self._first_level(trial))

    def _first_level(self, trial: Trial) -> int:
        """Return where the trial's bracket starts, which Optuna does not tell.

        A diverged run is pruned at the first level at which its bracket looks. So the
        pruner is asked about copies of the trial that have diverged.
        """
        diverged = copy.copy(self._study.get_trials(deepcopy=False)[trial.number])
        for level in range(len(self._fidelities) - 1):
            diverged.intermediate_values = {self._step(level): math.nan}
            if self._study.pruner.prune(self._study, diverged):
                return level
        return len(self._fidelities) - 1

    def _step(self, level: int) -> int:
        """Return Optuna's number of steps. Its levels are exact powers of η."""
        return int(self._eta**level)


def _distribution(choices: int) -> BaseDistribution:
    if choices:
        return CategoricalDistribution(list(range(choices)))
    return FloatDistribution(0.0, 1.0)


def _study(levels: int, eta: int, seed: int) -> optuna.Study:
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if levels > 1:
        # One more than ηˡ⁻¹: the pruner finds the number of brackets by logarithms.
        pruner = optuna.pruners.HyperbandPruner(
            min_resource=1, max_resource=eta ** (levels - 1) + 1, reduction_factor=eta
        )
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces new studies
    try:
        return optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=pruner,
            study_name="search",  # the pruner derives the brackets of trials from it
        )
    finally:
        optuna.logging.set_verbosity(before)
