"""One estimate of one batch's hypergradient, its seconds, and how far L falls along it.

What is drawn follows from the numbers of the batch and of the draw alone.
"""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks import betty_methods, torchopt_methods
from benchmarks.fidelity_problems import Source
from benchmarks.measuring import synchronize
from benchmarks.methods import CANDIDATES, SIGMA, TEMPERATURE, Method, ours
from l2l_evograd import EvoGrad
from l2l_evograd.oracle.fidelity import flat
from l2l_evograd.oracle.unrolled import Unrolled
from l2l_evograd.runs.randomness import derive_seed, seeded

PLAIN, NAIVE, REFERENCE = "plain", "naive Algorithm 1", "second order (higher)"
IMPLICIT = "TorchOpt, implicit"
ALGORITHM_1 = EvoGrad(CANDIDATES, SIGMA, TEMPERATURE)

# Those of METHODS that perturb at random, here with a generator of their own, so that
# draws differ while the noise of the network's layers stays.
POPULATIONS = {
    "Algorithm 1": (ALGORITHM_1, "evolution"),
    "evograd, K = 2": (EvoGrad(2), "gradient"),
    "evograd, K = 8": (EvoGrad(8), "gradient"),
    "evograd, K = 32": (EvoGrad(32), "gradient"),
}

PEERS: dict[str, Method] = {**torchopt_methods.METHODS, **betty_methods.METHODS}


def is_random(name: str, noisy_layers: bool) -> bool:
    """Say whether the estimates of a batch differ from draw to draw."""
    return name in POPULATIONS or name == NAIVE or (noisy_layers and _own_noise(name))


def _own_noise(name: str) -> bool:
    """Say whether every evaluation of the inner loss draws its layers' noise anew."""
    return name in (NAIVE, IMPLICIT) or name in betty_methods.METHODS


def scale_of(name: str, lr: float) -> float:
    """Return what a method's estimates are multiplied by to stand for ``lr``."""
    evolution = name == NAIVE or POPULATIONS.get(name, (None, ""))[1] == "evolution"
    return lr / ALGORITHM_1.learning_rate if evolution else 1.0


def estimate(
    name: str, method: Method, source: Source, batch: int, draw: int = 0
) -> tuple[list[Tensor], float]:
    """Make one iteration on a batch's problem.

    Args:
        name: of the method.
        method: of :data:`METHODS` or :data:`PEERS`.
        source: of the problem.
        batch: its number.
        draw: number of the perturbations.

    Returns:
        The hypergradient, in the scale of all others, and the seconds that the
        iteration took.
    """
    problem = source(batch)
    seed = _layers_seed(batch)
    perturbations = derive_seed("perturbations", batch, draw)
    if name in POPULATIONS:
        estimator, update = POPULATIONS[name]
        generator = torch.Generator().manual_seed(perturbations)
        method = ours(estimator, update, generator=generator)
    elif _own_noise(name):
        seed = perturbations
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
    """Return L(θ'(λ)) − L(θ'(λ − δ ĝ/‖ĝ‖)) for each δ; 0 for an estimate of 0.

    Args:
        ground: the batch's problem.
        direction: ĝ.
        deltas: δ.
        batch: its number.
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
    """Return L(θ'(λ)) at the noise of the layers that belongs to a batch."""
    with seeded(_layers_seed(batch), ground.weights[0].device):
        return ground.outer_value()


def _layers_seed(batch: int) -> int:
    return derive_seed("layers", batch)
