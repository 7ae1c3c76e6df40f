"""The methods of the schedules experiment, and what a training run of each costs."""

from dataclasses import dataclass

from l2l_evograd.search.proposals import rungs
from l2l_evograd.unroll.schedule import steps_per_window


@dataclass(frozen=True)
class Method:
    """A way to find a schedule.

    Attributes:
        name: name on the command line.
        summary: one line that describes the method to the user.
        family: ``"grid"``: tries the values of a grid; ``"gradient"``: follows
            hypergradients; ``"black box"``: needs the outer loss only.
        control: the method that this one is compared with, besides ``constant``.
    """

    name: str
    summary: str
    family: str
    control: str | None = None


BASELINE = "constant"

METHODS = {
    method.name: method
    for method in (
        Method("constant", "one rate for the whole run, from a grid", "grid"),
        Method(
            "cosine", "half a cosine from a peak to 0, the peak from a grid", "grid"
        ),
        Method("greedy", "hypergradients one step ahead, sign descent", "gradient"),
        Method("fds", "forward mode, sign descent", "gradient", "greedy"),
        Method("reversible", "reversible SGD, sign descent", "gradient", "greedy"),
        Method(
            "reversible-steps",
            "reversible SGD, a rate for every step, Adam on its logarithm",
            "gradient",
            "reversible",
        ),
        Method(
            "dehb", "DEHB, with short runs as low fidelities", "black box", "random"
        ),
        Method("random", "random search with whole runs", "black box"),
    )
}

USUAL_METHODS = tuple(name for name in METHODS if name != "reversible-steps")


# In DEHB, a run has this many times the steps of the next shorter kind of run.
ETA = 3


def shortest_run(steps: int, windows: int) -> int:
    """Return the least number of steps of a run of DEHB: T / 9, but a step a window.

    Args:
        steps: T.
        windows: number of windows.
    """
    return max(windows, steps // ETA**2)


def first_whole_run(steps: int, windows: int) -> int | None:
    """Return what DEHB spends until its first whole run; None without short runs.

    Args:
        steps: number of steps of a whole run.
        windows: number of windows.
    """
    kinds = rungs(shortest_run(steps, windows), steps, ETA)
    if len(kinds) == 1:
        return None
    return sum(kind * ETA**number for number, kind in enumerate(reversed(kinds)))


def products(steps: int, windows: int) -> int:
    """Return the number of Hessian-vector products of forward mode.

    The tangent of a window is 0 until the window's first step is over, so this is
    Σ (T − s − 1) over the first steps s of the windows, less than T (N + 1) / 2.

    Args:
        steps: T.
        windows: N.
    """
    first, found = 0, 0
    for length in steps_per_window(windows, steps):
        found += steps - first - 1
        first += length
    return found


def gradients_per_run(method: str, steps: int, windows: int) -> int:
    """Return how many gradients a method computes for one training run.

    One gradient is one forward and one backward pass over one batch. A product of a
    Hessian and a vector counts as 2. With T steps and N windows:

    - constant, cosine, dehb, random: T.
    - greedy: T of the inner and T of the outer loss, each on one batch.
    - fds: T, and 2 for each of less than T (N + 1) / 2 products.
    - reversible, reversible-steps: T on the way there, T on the way back, and 2 T.

    Every method also needs the outer loss of the finished run, on all validation
    images, and those with a second derivative look at 8 steps whether it is symmetric.
    That is not counted.

    Args:
        method: name of the method.
        steps: T.
        windows: N.
    """
    if METHODS[method].family != "gradient":
        return steps
    if method == "greedy":
        return 2 * steps
    if method == "fds":
        return steps + 2 * products(steps, windows)
    return 4 * steps
