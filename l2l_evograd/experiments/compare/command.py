"""``l2l-evograd compare``."""

from typing import Annotated, Any

from rich.console import Console

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.options import (
    GivenNumber,
    GivenWhole,
    NotAnOption,
)
from l2l_evograd.experiments.output import printing
from l2l_evograd.experiments.settings import MOST_SEED, NamesOrNone
from l2l_evograd.experiments.values import checked, number, split_names
from l2l_evograd.seeds import seeded

# Columns of the table. A narrower console would cut off numbers.
_WIDTH = 100


@printing("compare")
def compare(
    problem: str,
    /,
    *,
    estimators: NamesOrNone = None,
    lr: GivenNumber | None = None,
    steps: GivenWhole | None = None,
    draws: GivenWhole | None = None,
    deltas: str | None = None,
    seed: GivenWhole = 0,
    console: Annotated[Console | None, NotAnOption] = None,
) -> list[dict[str, Any]]:
    """Compare estimators of the hypergradient with the exact one on your own problem.

    The table shows for each estimator how close it comes to the exact hypergradient,
    how far the outer loss falls along it, and what it costs. FUNCTION takes no
    arguments and returns a dictionary: model, inner_loss, outer_loss, hyperparameters,
    and if you like other arguments of l2l_evograd.oracle.compare, which the options
    override.

    Args:
        problem: MODULE:FUNCTION or FILE.py:FUNCTION, such as problem.py:problem.
        estimators: Names, separated by commas: exact, guided-central, guided-forward,
            guided, evograd, evograd-paper, evograd-K or evograd-paper-K with K
            candidates, or names of the problem's own. [default: the problem's own, or
            exact, guided-central, guided-forward, evograd and evograd-paper]
        lr: Learning rate of the inner steps. [default: the problem's]
        steps: Number of inner steps. [default: the problem's, or 1]
        draws: Number of estimates of each random method. [default: the problem's, or
            32]
        deltas: Lengths of the steps along the estimates, separated by commas.
            [default: the problem's, or 0.03,0.3]
        seed: Seed of the function's random numbers and of the perturbations.
        console: console to print on; None: the standard output.

    Returns:
        One row for each estimator, the reference first.

    Raises:
        InputError: for a module, function or problem that cannot be used.
        ProblemError: for errors of the problem's own code.
    """
    from l2l_evograd import oracle
    from l2l_evograd.experiments.compare.names import estimators_by_name
    from l2l_evograd.experiments.compare.problem import own_errors, problem_of

    checked("seed", int, {"least": 0, "most": MOST_SEED}, seed)
    options = {"lr": lr, "steps": steps, "draws": draws, "deltas": _numbers(deltas)}
    given: dict[str, Any] = {n: v for n, v in options.items() if v is not None}
    with seeded(seed):
        own = problem_of(problem)
        if estimators is not None:
            given["estimators"] = estimators_by_name(estimators, own.get("estimators"))
        arguments = {**own, "seed": seed, **given}
        if "lr" not in arguments:
            raise InputError(
                f"{problem} returns no lr, the learning rate of the inner steps: "
                f"expected it there, or --lr"
            )
        with own_errors(problem):
            found = oracle.compare(**arguments)
    if console is not None:
        console.width = max(console.width, _WIDTH)
    found.print(console)
    return found.to_dicts()


def _numbers(text: str | None) -> list[float] | None:
    """Return the numbers in a text, which commas separate."""
    if text is None:
        return None
    try:
        return [number(part) for part in split_names(text)]
    except ValueError as error:
        raise InputError(f"--deltas: {error}") from error
