"""What the methods of search have in common: ask for a configuration, tell its loss."""

from typing import Any, NamedTuple, Protocol

from l2l_evograd.checks import InputError


class Proposal(NamedTuple):
    """A configuration to train.

    Attributes:
        config: a value for each name.
        fidelity: number of steps to train it for.
        token: what the method needs when it is told the loss.
    """

    config: dict[str, Any]
    fidelity: int
    token: Any = None


class Proposals(Protocol):
    """A method of search.

    The proposals depend only on the method's seed and on the order and values of what
    was asked and told.

    Attributes:
        least_budget: what it costs, one evaluation after another, until a first
            configuration has been trained for the highest fidelity.
    """

    least_budget: int

    def ask(self) -> Proposal:
        """Return the next configuration to train."""

    def tell(self, proposal: Proposal, loss: float) -> None:
        """Take the loss of a proposal; NaN or infinite: its run diverged."""


def rungs(min_fidelity: int, max_fidelity: int, eta: int) -> list[int]:
    """Return the fidelities R η⁻ʲ that are at least r, rounded, the lowest first.

    The number of them is found in whole numbers. With logarithms, as libraries do it,
    243 = 3⁵ loses a rung to rounding.

    Args:
        min_fidelity: r.
        max_fidelity: R.
        eta: η.
    """
    count = 1
    while min_fidelity * eta**count <= max_fidelity:
        count += 1
    return [round(max_fidelity / eta**power) for power in reversed(range(count))]


def check_without_forbidden(method: str, forbidden: int) -> None:
    """Refuse a space with forbidden clauses for a method that searches the unit cube.

    Raises:
        InputError: if there is such a clause.
    """
    if forbidden:
        raise InputError(
            f"expected a space without forbidden clauses for method={method!r}, got "
            f"{forbidden}; let train return infinity there, or use method='random'"
        )
