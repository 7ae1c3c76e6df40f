"""MAML on sine regression: each task is a sine of unknown amplitude and phase.

Shows:   a script like learn2learn's maml_sine.py. The line that changes:

             maml = l2l.algorithms.MAML(model, lr=FAST_LR, first_order=first_order)
             maml = EvoGradMetaOptimizer(model, lr=FAST_LR, first_order=first_order)

         Each inner loss is the sum of two forward passes, each learner adapts several
         times, and a single backward() differentiates the errors of all learners.
Prints:  squared error in meta-training, and on new sines after 0, 1, ... inner steps.
Time:    about thirty seconds on one core. Needs NumPy, but not learn2learn.

    python examples/learn2learn/sine.py --steps 250
"""

import argparse
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from l2l_evograd import EvoGradMetaOptimizer

POINTS, META_BATCH_SIZE, ADAPTATION_STEPS = 10, 4, 3
FAST_LR, META_LR = 0.01, 0.003
Figures = tuple[list[float], list[list[float]]]


def make_task() -> tuple[Tensor, Tensor]:
    """Return points of one sine, alternately support and query points."""
    amplitude = 0.1 + 4.9 * torch.rand(1)
    phase = math.pi * torch.rand(1)
    x = 10 * torch.rand(2 * POINTS, 1) - 5
    return x, amplitude * torch.sin(x + phase)


def fast_adapt(
    task: tuple[Tensor, Tensor], learner: Any, loss: nn.Module
) -> list[Tensor]:
    """Return the error on the query points before and after each inner step."""
    x, y = task
    adaptation_indices = np.zeros(x.size(0), dtype=bool)
    adaptation_indices[np.arange(POINTS) * 2] = True
    evaluation_indices = ~adaptation_indices
    halves = np.arange(x.size(0)) < POINTS
    parts = (adaptation_indices & halves, adaptation_indices & ~halves)
    errors = [loss(learner(x[evaluation_indices]), y[evaluation_indices])]
    for _ in range(ADAPTATION_STEPS):
        train_error: Any = 0.0
        for part in parts:
            train_error += loss(learner(x[part]), y[part])
        train_error /= POINTS
        learner.adapt(train_error)
        errors.append(loss(learner(x[evaluation_indices]), y[evaluation_indices]))
    for error in errors:
        error /= POINTS
    return errors


def train(
    method: Callable[..., Any], steps: int, test_tasks: int, first_order: bool = False
) -> Figures:
    """Return the error of each iteration, and of test tasks after each inner step."""
    torch.manual_seed(0)
    layers = [nn.Linear(1, 40), nn.ReLU(inplace=True), nn.Linear(40, 40)]
    model = nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Linear(40, 1))
    maml = method(model, lr=FAST_LR, first_order=first_order)
    optimizer = torch.optim.Adam(maml.parameters(), META_LR)
    loss, history, tests = nn.MSELoss(reduction="sum"), [], []
    for _ in range(steps):
        optimizer.zero_grad()
        meta_error: Any = 0.0
        for _ in range(META_BATCH_SIZE):
            meta_error += fast_adapt(make_task(), maml.clone(), loss)[-1]
        meta_error /= META_BATCH_SIZE
        meta_error.backward()
        optimizer.step()
        history.append(meta_error.item())
    for _ in range(test_tasks):
        errors = fast_adapt(make_task(), maml.clone(), loss)
        tests.append([error.item() for error in errors])
    return history, tests


def main(steps: int = 250, test_tasks: int = 100) -> Figures:
    """Train, print and return the squared errors."""
    history, tests = train(EvoGradMetaOptimizer, steps, test_tasks)
    for first, part in enumerate(np.array_split(history, 4)):
        print(f"meta-training, quarter {first + 1}: squared error {part.mean():.3f}")
    for step, error in enumerate(np.mean(tests, axis=0)):
        print(f"new sines after {step} inner steps: squared error {error:.3f}")
    return history, tests


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=250)
    main(parser.parse_args().steps)
