"""``search``: the best configuration within a budget, trained anew on fresh seeds."""

import contextlib
import importlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l2l_evograd.checks import (
    InputError,
    check_choice,
    check_count,
    check_positive,
    check_seed,
)
from l2l_evograd.lock import locked
from l2l_evograd.search.evaluation import (
    Evaluation,
    best_of,
    fresh_seed,
    searched_seed,
)
from l2l_evograd.search.evaluator import Evaluator, Job
from l2l_evograd.search.proposals import Proposals, rungs
from l2l_evograd.search.record import FRESH, SEARCH, Record
from l2l_evograd.search.workers import Train, number_of_workers, workers_for

if TYPE_CHECKING:
    from l2l_evograd.search.space import Space

METHODS = ("dehb", "random", "tpe")

# The libraries that each method imports, by their names in Python.
_LIBRARIES = {
    "dehb": ("ConfigSpace", "dehb"),
    "random": ("ConfigSpace",),
    "tpe": ("ConfigSpace", "optuna"),
}


class BudgetError(InputError):
    """A budget that does not suffice for one evaluation at ``max_fidelity``.

    Attributes:
        least: the least budget that does.
    """

    def __init__(self, text: str, least: int) -> None:
        super().__init__(text)
        self.least = least


@dataclass(frozen=True)
class SearchResult:
    """What a search has found.

    Attributes:
        best: the configuration with the lowest loss at ``max_fidelity``.
        losses: its losses on the fresh seeds, at ``max_fidelity``.
        loss: their mean; report this one.
        searched_loss: its loss in the search. It is the lowest of many noisy ones, and
            therefore too low.
        evaluations: the training runs of the search, in the order of the proposals.
        spent: the sum of their fidelities.
    """

    best: dict[str, Any]
    losses: list[float]
    loss: float
    searched_loss: float
    evaluations: list[Evaluation]
    spent: int


def search(
    train: Train,
    space: Any,
    *,
    min_fidelity: int,
    max_fidelity: int,
    budget: float,
    eta: int = 3,
    method: str = "dehb",
    seed: int = 0,
    fresh_seeds: int = 3,
    workers: int = 1,
    client: Any = None,
    folder: str | PathLike[str] | None = None,
    resume: bool = False,
    progress: Callable[[Evaluation, int], object] | None = None,
) -> SearchResult:
    """Search for the configuration that trains best, without any gradient.

    Every evaluation trains from the start, and its cost is its fidelity: the number of
    steps, or whatever the unit is. An evaluation that was started always ends, and none
    is started that would pass the budget: the first such proposal ends the search. The
    best configuration is taken from the evaluations at ``max_fidelity``, then trained
    anew on seeds that the search has not used.

    The methods:

    - ``"dehb"``: differential evolution within Hyperband; short runs of many
      configurations choose those that are trained for longer.
    - ``"random"``: draws from the space, all trained for ``max_fidelity``.
    - ``"tpe"``: Optuna's TPE with its Hyperband pruner. The pruner is made to stop one
      training run early. Here each of its looks is a run from the start, which is
      charged: a full trial with fidelities 1, 3, 9, 27 costs 40.

    **Repeatable**: if ``train`` is, the same arguments give the same configurations,
    seeds and fidelities in the same order, with several workers too. Proposal
    n + ``workers`` is made when the loss of proposal n is known, however long the
    others take. So another number of workers is another search (not for ``"random"``),
    and workers wait while a long run holds up the order.

    **Interrupted and resumed**: with ``folder`` every evaluation is written as soon as
    it ends. A search that was stopped, killed, or ended by an error in ``train`` is
    resumed by the same call with ``resume=True``, and gives what it would have given.
    The recorded losses are told again in order, and every proposal is compared with the
    record. Only ``budget``, ``fresh_seeds``, ``client`` and ``progress`` may change, so
    a search can be prolonged.

    Args:
        train: called with a configuration (a dictionary), a fidelity and a seed; trains
            from the start and returns the validation loss. NaN or infinite: the run
            diverged, which counts as worst. What it raises reaches the caller.
        space: a ``ConfigSpace.ConfigurationSpace``, or a dictionary that gives each
            name ``(low, high)``, ``(low, high, "log")`` or a list of choices. Numbers
            are whole if both bounds are. With ``"dehb"`` and ``"tpe"`` all parts of a
            range count alike, and forbidden clauses are refused.
        min_fidelity: r, the shortest training.
        max_fidelity: R, the whole training. The fidelities are R η⁻ʲ ≥ r, rounded.
        budget: sum of the fidelities that the search may spend. The fresh training
            runs, ``fresh_seeds`` · R, come on top.
        eta: η, the part of the configurations that is trained η times longer is 1/η.
        method: ``"dehb"``, ``"random"`` or ``"tpe"``.
        seed: of the proposals and of the training runs' seeds.
        fresh_seeds: number of new training runs of the best configuration.
        workers: number of training runs at once. More than one: processes of this
            machine, which dask starts and which end with the search. ``train`` must be
            picklable, and the script under ``if __name__ == "__main__":``.
        client: a ``distributed.Client``, to train on several machines; stays open. Then
            ``workers`` of 1 stands for the threads of all its workers.
        folder: where to record the evaluations; None: nowhere.
        resume: whether to go on with the search in ``folder``.
        progress: called with each evaluation of the search and the budget spent so far,
            in the order of the proposals; also with those of the record.

    Returns:
        The best configuration, its losses on fresh seeds, and all evaluations. If all
        whole trainings diverged, ``searched_loss`` is not finite and ``best`` is the
        first of them.

    Raises:
        InputError: if an argument is bad, if the budget does not suffice for a first
            evaluation at ``max_fidelity``, if ``folder`` contains another search, or if
            no evaluation reached ``max_fidelity``.
        TypeError: if ``train`` does not return a number.
        ImportError: if a library is missing; names the extra to install.

    Cost: ``budget`` + ``fresh_seeds`` · ``max_fidelity`` steps of training at most, and
    a few milliseconds for a proposal, which grow with the number of trials for
    ``"tpe"``. Processes take some seconds to start.

    Sources: Awad, Mallik and Hutter, DEHB, IJCAI 2021 (arXiv 2105.09821); Li et al.,
    Hyperband, JMLR 2018; Akiba et al., Optuna, KDD 2019.
    """
    check_choice(method, METHODS, "method")
    _check_numbers(min_fidelity, max_fidelity, eta, budget)
    check_seed(seed)
    check_count(fresh_seeds, "fresh_seeds")
    at_once = number_of_workers(check_count(workers, "workers"), client)
    _check_libraries(method)
    from l2l_evograd.search.space import Space

    searched = Space(space)
    fidelities = rungs(min_fidelity, max_fidelity, eta)
    proposals = _proposals(method, searched, fidelities, eta, seed)
    _check_budget(budget, proposals, method)
    settings = {
        "method": method,
        "seed": seed,
        "min_fidelity": min_fidelity,
        "max_fidelity": max_fidelity,
        "eta": eta,
        "workers": at_once,
        "space": searched.describe(),
    }
    place = None if folder is None else Path(folder)
    with contextlib.ExitStack() as stack:
        if place is not None:
            stack.enter_context(locked(place, "folder"))
        record = Record(place, settings, resume=resume)
        computing = stack.enter_context(workers_for(train, at_once, client))
        evaluator = Evaluator(computing, record, at_once)
        evaluations, spent = _search(proposals, evaluator, seed, budget, progress)
        whole = [one for one in evaluations if one.fidelity == max_fidelity]
        if not whole:
            raise InputError(_nothing_whole(evaluations, budget))
        best = best_of(whole)
        losses = _trained_anew(evaluator, best, seed, fresh_seeds)
    return SearchResult(
        best=dict(best.config),
        losses=losses,
        loss=sum(losses) / len(losses),
        searched_loss=best.loss,
        evaluations=evaluations,
        spent=spent,
    )


def _search(
    proposals: Proposals,
    evaluator: Evaluator,
    seed: int,
    budget: float,
    progress: Callable[[Evaluation, int], object] | None,
) -> tuple[list[Evaluation], int]:
    """Return the evaluations that the budget allows, and what they cost."""
    evaluations: list[Evaluation] = []
    spent = 0
    jobs = _proposed(proposals, seed, budget)
    for job, evaluation in evaluator.in_order(jobs):
        proposals.tell(job.origin, evaluation.loss)
        evaluations.append(evaluation)
        spent += evaluation.fidelity
        if progress is not None:
            progress(evaluation, spent)
    return evaluations, spent


def _proposed(proposals: Proposals, seed: int, budget: float) -> Iterator[Job]:
    started = 0
    for number in itertools.count():
        proposal = proposals.ask()
        config, fidelity = proposal.config, proposal.fidelity
        started += fidelity
        if started > budget:
            return
        own = searched_seed(seed, number)
        yield Job(SEARCH, number, config, fidelity, own, proposal)


def _trained_anew(
    evaluator: Evaluator, best: Evaluation, seed: int, count: int
) -> list[float]:
    jobs = (
        Job(FRESH, number, best.config, best.fidelity, fresh_seed(seed, number))
        for number in range(count)
    )
    return [evaluation.loss for _, evaluation in evaluator.in_order(jobs)]


def _proposals(
    method: str, space: "Space", fidelities: list[int], eta: int, seed: int
) -> Proposals:
    if method == "dehb":
        from l2l_evograd.search.dehb_proposals import DEHBProposals

        return DEHBProposals(space, fidelities, eta, seed)
    if method == "tpe":
        from l2l_evograd.search.tpe_proposals import TPEProposals

        return TPEProposals(space, fidelities, eta, seed)
    from l2l_evograd.search.random_proposals import RandomProposals

    return RandomProposals(space, fidelities[-1], seed)


def _check_libraries(method: str) -> None:
    for name in _LIBRARIES[method]:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(
                f"search with method={method!r} needs {name}, which cannot be imported "
                f"({error}); pip install 'l2l-evograd[search]'"
            ) from error


def _check_numbers(
    min_fidelity: int, max_fidelity: int, eta: int, budget: float
) -> None:
    check_count(min_fidelity, "min_fidelity")
    check_count(max_fidelity, "max_fidelity")
    check_count(eta, "eta", least=2)
    check_positive(budget, "budget")
    if min_fidelity > max_fidelity:
        raise InputError(
            f"expected min_fidelity to be at most max_fidelity={max_fidelity}, got "
            f"{min_fidelity}"
        )


def _check_budget(budget: float, proposals: Proposals, method: str) -> None:
    if budget < proposals.least_budget:
        raise BudgetError(
            f"expected budget to be at least {proposals.least_budget}, so that "
            f"method={method!r} gets to train a first configuration for max_fidelity, "
            f"got {budget}",
            proposals.least_budget,
        )


def _nothing_whole(evaluations: list[Evaluation], budget: float) -> str:
    diverged = sum(one.diverged for one in evaluations)
    return (
        f"expected an evaluation at max_fidelity, but none was reached: {diverged} of "
        f"{len(evaluations)} evaluations diverged; raise budget={budget} (a recorded "
        f"search can be resumed with more), or take values that diverge out of space"
    )
