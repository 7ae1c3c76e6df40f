"""A cheap training run to search over, and searches that are cut short."""

import math
import random

SPACE = {"lr": (1e-4, 1.0, "log"), "layers": (1, 4), "kind": ["a", "b", None]}

# One round of brackets of DEHB for the fidelities 1, 3, 9, 27.
ROUND = 405

FEW = {"min_fidelity": 1, "max_fidelity": 27, "budget": ROUND}


class Interrupted(Exception):
    """Stands for whatever ends a search early."""


def train(config, fidelity, seed):
    """Return a noisy loss: the more steps, the less noise, and the lower."""
    noise = random.Random(seed).gauss(0, 0.3) / math.sqrt(fidelity)
    kind = {"a": 0.0, "b": 0.2, None: 0.1}[config["kind"]]
    return (
        abs(math.log10(config["lr"]) + 2)
        + 0.1 * config["layers"]
        + kind
        + 1 / fidelity
        + noise
    )


def told(result):
    """Return all of a result that is repeatable."""
    return (
        [(one.config, one.fidelity, one.seed, one.loss) for one in result.evaluations],
        result.best,
        result.losses,
        result.searched_loss,
        result.spent,
    )


def stopping_after(calls, error=Interrupted, train=train):
    """Return a training run that raises an error at the call after ``calls``."""
    left = [calls]

    def stopping(config, fidelity, seed):
        left[0] -= 1
        if left[0] < 0:
            raise error
        return train(config, fidelity, seed)

    return stopping
