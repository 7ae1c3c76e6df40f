"""Random search: configurations drawn from the space, all trained to the end."""

from l2l_evograd.search.proposals import Proposal
from l2l_evograd.search.space import Space
from l2l_evograd.seeds import derive_seed


class RandomProposals:
    """Proposals that do not depend on what was told.

    Args:
        space: the space; its distributions are kept.
        fidelity: number of steps for each.
        seed: of the draws.
    """

    def __init__(self, space: Space, fidelity: int, seed: int) -> None:
        self.least_budget = self._fidelity = fidelity
        self._space = space
        space.seed(derive_seed("random", seed) % 2**32)

    def ask(self) -> Proposal:
        """Return the next configuration to train."""
        return Proposal(self._space.draw(), self._fidelity)

    def tell(self, proposal: Proposal, loss: float) -> None:
        """Take the loss of a proposal, which changes nothing."""
        del proposal, loss
