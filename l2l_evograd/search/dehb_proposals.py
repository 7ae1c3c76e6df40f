"""DEHB through the ask and tell of the library ``dehb``.

The library is asked for points of the unit cube, and :class:`Space` turns them into
configurations. The library's own translation puts choice i of m at the left edge of its
part, so that mutants favour the first choices.
"""

import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dehb import DEHB  # type: ignore[import-untyped]

from l2l_evograd.checks import InputError
from l2l_evograd.search.proposals import Proposal, check_without_forbidden
from l2l_evograd.search.space import Space
from l2l_evograd.seeds import derive_seed

# The library never takes NaN or infinity into a population; when a whole rung of them
# has to be promoted, it fails.
_WORST = sys.float_info.max


class _Silent(DEHB):
    """DEHB without its log."""

    def _setup_logger(self, resume: bool, kwargs: dict[str, Any]) -> None:
        """Set a logger that is off, in place of the library's set-up.

        The library's removes all handlers that the process has given to loguru, and
        writes dehb.log.
        """
        del resume, kwargs
        self.output_path = Path()  # is made if it is missing; nothing is written to it
        self.logger = logging.Logger("dehb")
        self.logger.disabled = True


class DEHBProposals:
    """Differential evolution within Hyperband.

    Defaults of the paper: rand/1/bin, F = 0.5, p = 0.5. One round of brackets for the
    fidelities 1 to 27 with η = 3 has (27, 9, 3, 1), (9, 3, 1), (6, 2) and (4)
    evaluations.

    Args:
        space: the space.
        fidelities: at least two, the lowest first; each is η times the one before,
            rounded.
        eta: η.
        seed: of the populations, mutations and crossovers.

    Raises:
        InputError: if there is one fidelity only, or the space has forbidden clauses.

    Source: Awad, Mallik and Hutter, DEHB, IJCAI 2021, arXiv 2105.09821.
    """

    def __init__(
        self, space: Space, fidelities: Sequence[int], eta: int, seed: int
    ) -> None:
        check_without_forbidden("dehb", space.forbidden)
        levels = len(fidelities)
        if levels < 2:
            raise InputError(
                f"expected max_fidelity to be at least eta={eta} times min_fidelity "
                f"for method='dehb', which compares short runs, got no rung below "
                f"max_fidelity={fidelities[-1]}; lower min_fidelity or eta, or use "
                f"method='random' or 'tpe'"
            )
        self._space = space
        self._fidelities = list(fidelities)
        self.least_budget = sum(
            fidelity * eta ** (levels - 1 - level)
            for level, fidelity in enumerate(fidelities)
        )
        self._optimizer = _Silent(
            dimensions=len(space.choices),
            # Slightly less than R η^(1 - levels), so that rounding loses no rung.
            min_fidelity=fidelities[-1] * eta ** (1 - levels) * (1 - 1e-9),
            max_fidelity=fidelities[-1],
            eta=eta,
            seed=derive_seed("dehb", seed) % 2**32,
            n_workers=1,
            save_freq="end",
        )
        # The library numbers the rungs by floating-point fidelities.
        self._level = {
            rung: level for level, rung in enumerate(self._optimizer.fidelities)
        }

    def ask(self) -> Proposal:
        """Return the next configuration to train."""
        job = self._optimizer.ask()
        fidelity = self._fidelities[self._level[job["fidelity"]]]
        return Proposal(self._space.at(job["config"]), fidelity, job)

    def tell(self, proposal: Proposal, loss: float) -> None:
        """Take the loss of a proposal; NaN or infinite: its run diverged."""
        fitness = loss if math.isfinite(loss) else _WORST
        self._optimizer.tell(proposal.token, {"fitness": fitness, "cost": 0.0})
