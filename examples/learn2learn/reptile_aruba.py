"""Reptile with learned inner learning rates, on learn2learn's sines.

Shows:   a script like learn2learn's Reptile. The lines that change:

             learner = deepcopy(model)         learner = meta.clone()
             optimizer.step() of the learner   learner.adapt(loss)
             p.grad = p - learner's p          learner.init_loss().backward()

         with meta = ARUBA(model, lr), and meta.collect(learner) after each task.
Prints:  error after adaptation to new sines, with Reptile at several rates and with
         ARUBA from the same rates, over seeds.
Time:    about fifty seconds on one core.

    python examples/learn2learn/reptile_aruba.py --meta-iterations 100
"""

import argparse
import math
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from l2l_evograd import ARUBA

STEPS, POINTS, TASKS = 8, 10, 5


def sine(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return points of a random sine."""
    amplitude, phase = torch.rand(2, generator=generator)
    x = 10 * torch.rand(2 * POINTS, 1, generator=generator) - 5
    return x, (0.1 + 4.9 * amplitude) * torch.sin(x + math.pi * phase)


def adapt(learner: ARUBA, x: Tensor, y: Tensor, steps: int) -> None:
    """Adapt a learner to points."""
    for _ in range(steps):
        learner.adapt(mse_loss(learner(x), y))


def train(lr: float, learned: bool, iterations: int, seed: int) -> ARUBA:
    """Return the algorithm after meta-training by Reptile."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    layers = [nn.Linear(1, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh()]
    meta = ARUBA(nn.Sequential(*layers, nn.Linear(40, 1)), lr)
    optimizer = torch.optim.SGD(meta.parameters(), lr=1.0)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, iterations)
    for _ in range(iterations):
        optimizer.zero_grad()
        for _ in range(TASKS):
            learner = meta.clone(lr=None if learned else lr)
            adapt(learner, *sine(generator), STEPS)
            (learner.init_loss() / TASKS).backward()
            meta.collect(learner)
        optimizer.step()
        falling.step()
    return meta


def test(meta: ARUBA, lr: float | None, seed: int, tasks: int) -> float:
    """Return the mean error on new sines, after as many steps as in training."""
    generator = torch.Generator().manual_seed(10_000 + seed)
    errors = []
    for _ in range(tasks):
        x, y = sine(generator)
        learner = meta.clone(lr=lr)
        adapt(learner, x[:POINTS], y[:POINTS], STEPS)
        errors.append(mse_loss(learner(x[POINTS:]), y[POINTS:]).item())
    return fmean(errors)


def main(
    meta_iterations: int = 100, seeds: int = 2, test_tasks: int = 40
) -> dict[float, tuple[float, float]]:
    """Train, print and return the errors of Reptile and of ARUBA for each rate."""
    found = {}
    for lr in (0.005, 0.02, 0.05):
        errors: list[list[float]] = [[], []]
        for seed in range(seeds):
            for place, learned in enumerate((False, True)):
                meta = train(lr, learned, meta_iterations, seed)
                rate = None if learned else lr
                errors[place].append(test(meta, rate, seed, test_tasks))
        found[lr] = fmean(errors[0]), fmean(errors[1])
        medians = [rates.median() for rates in meta.rates()]
        learned_rate = float(torch.stack(medians).median())
        print(
            f"rate {lr}: Reptile {found[lr][0]:.3f}, ARUBA {found[lr][1]:.3f} "
            f"(median rate at the end {learned_rate:.4f})"
        )
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--meta-iterations", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--test-tasks", type=int, default=40)
    main(**vars(parser.parse_args()))
