"""Estimates of a batch's hypergradient: their seconds, and how far L falls along them.

All random numbers follow from the number of the batch and the number of the draw.
"""

import time
from collections.abc import Sequence

from torch import Tensor

from benchmarks import betty_methods, torchopt_methods
from benchmarks.fidelity_problems import Source
from benchmarks.measuring import synchronize
from benchmarks.methods import CANDIDATES, SIGMA, TEMPERATURE, BilevelMethod, ours
from l2l_evograd import EvoGrad, Guided
from l2l_evograd.oracle.fidelity import flat
from l2l_evograd.oracle.unrolled import Unrolled
from l2l_evograd.seeds import derive_seed, generator_for, seeded

NAIVE, REFERENCE = "naive Algorithm 1", "second order (higher)"
IMPLICIT = "TorchOpt, implicit"
ALGORITHM_1 = EvoGrad(CANDIDATES, SIGMA, TEMPERATURE)

# The methods that perturb at random. Here each gets a generator of its own, so that
# perturbations differ from draw to draw while the noise of the layers stays the same.
POPULATIONS = {
    "Algorithm 1": (ALGORITHM_1, "evolution"),
    "evograd, K = 2": (EvoGrad(2), "gradient"),
    "evograd, K = 8": (EvoGrad(8), "gradient"),
    "evograd, K = 32": (EvoGrad(32), "gradient"),
}

# Guided at several lengths h of its step, to judge the default.
STEP_LENGTHS: dict[str, BilevelMethod] = {
    f"guided, {scheme}, h = {h:g}": ours(Guided(h=h, scheme=scheme))
    for scheme in ("central", "forward")
    for h in (0.003, 0.01, 0.03, 0.1, 0.3)
}

# Methods of other libraries, which may fail on a problem.
PEERS: dict[str, BilevelMethod] = {
    **torchopt_methods.METHODS,
    **betty_methods.METHODS,
}


def is_random(name: str, noisy_layers: bool) -> bool:
    """Return whether the estimates of a batch differ from draw to draw."""
    return name in POPULATIONS or name == NAIVE or (noisy_layers and _own_noise(name))


def _own_noise(name: str) -> bool:
    """Return whether every evaluation of the inner loss draws noise of its own."""
    return name in (NAIVE, IMPLICIT) or name in betty_methods.METHODS


def scale_of(name: str, lr: float) -> float:
    """Return the factor that scales a method's estimates to learning rate ``lr``."""
    evolution = name == NAIVE or POPULATIONS.get(name, (None, ""))[1] == "evolution"
    return lr / ALGORITHM_1.learning_rate if evolution else 1.0


def estimate(
    name: str, method: BilevelMethod, source: Source, batch: int, draw: int = 0
) -> tuple[list[Tensor], float]:
    """Make one iteration of a method on the problem of a batch.

    Args:
        name: name of the method.
        method: method of :data:`~benchmarks.methods.METHODS` or :data:`PEERS`.
        source: function that makes the problem of a batch.
        batch: number of the batch.
        draw: number of the draw.

    Returns:
        The hypergradient, scaled to the learning rate of the problem, and the seconds
        of the iteration.
    """
    problem = source(batch)
    seed = _layers_seed(batch)
    if name in POPULATIONS:
        estimator, update = POPULATIONS[name]
        generator = generator_for("perturbations", batch, draw)
        method = ours(estimator, update, generator=generator)
    elif _own_noise(name):
        seed = derive_seed("perturbations", batch, draw)
    device = problem.weights[0].device
    with seeded(seed, device):
        synchronize(device)
        begin = time.perf_counter()
        found = method(problem)
        synchronize(device)
        seconds = time.perf_counter() - begin
    scale = scale_of(name, problem.lr)
    return [scale * part for part in found], seconds


def drops(
    ground: Unrolled,
    direction: Sequence[Tensor],
    deltas: Sequence[float],
    batch: int,
    start: float,
) -> list[float]:
    """Return L(θ'(λ)) − L(θ'(λ − δ ĝ/‖ĝ‖)) for each δ. If ĝ is 0, all of them are 0.

    Args:
        ground: problem of the batch.
        direction: ĝ.
        deltas: values of δ.
        batch: number of the batch.
        start: L(θ'(λ)).
    """
    norm = float(flat(direction).norm())
    if norm == 0:
        return [0.0] * len(deltas)
    found = []
    for delta in deltas:
        with ground.moved(direction, delta / norm):
            found.append(start - outer_value(ground, batch))
    return found


def outer_value(ground: Unrolled, batch: int) -> float:
    """Return L(θ'(λ)) with the noise of the layers that belongs to a batch."""
    with seeded(_layers_seed(batch), ground.weights[0].device):
        return ground.outer_value()


def _layers_seed(batch: int) -> int:
    return derive_seed("layers", batch)
