"""MAML on sine regression: the loop over the tasks becomes one call.

Shows:   a meta-batch like that of learn2learn's maml_sine.py. The lines that change:

             for task in range(META_BATCH_SIZE):
                 learner = maml.clone()
                 for _ in range(ADAPTATION_STEPS):
                     learner.adapt(loss(learner(x[task]), y[task]))
                 errors.append(loss(learner(xq[task]), yq[task]))

             errors = maml.task_losses(loss, (x, y), (xq, yq), steps=ADAPTATION_STEPS)

         where maml is an EvoGradMetaOptimizer. All tasks are computed at once, with the
         same result. Double precision avoids rounding errors.
Prints:  squared error in meta-training and seconds, for the loop and for one call.
Time:    about forty seconds on one core, five sixths of them for the loop. Needs
         nothing but torch.

    python examples/learn2learn/tasks_at_once.py --steps 120
"""

import argparse
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from l2l_evograd import EvoGradMetaOptimizer

POINTS, META_BATCH_SIZE, ADAPTATION_STEPS = 10, 32, 5
FAST_LR, META_LR = 0.01, 0.005

Pair = tuple[Tensor, Tensor]
Way = Callable[[EvoGradMetaOptimizer, nn.Module, Pair, Pair], Tensor]


class Outcome(NamedTuple):
    """The error of each iteration, and the seconds of all."""

    errors: list[float]
    seconds: float


def make_tasks() -> tuple[Pair, Pair]:
    """Return support and query points of sines, each (tasks, points, 1)."""
    amplitude = 0.1 + 4.9 * torch.rand(META_BATCH_SIZE, 1, 1)
    phase = math.pi * torch.rand(META_BATCH_SIZE, 1, 1)
    x, xq = 10 * torch.rand(2, META_BATCH_SIZE, POINTS, 1) - 5
    return (
        (x, amplitude * torch.sin(x + phase)),
        (xq, amplitude * torch.sin(xq + phase)),
    )


def in_a_loop(
    maml: EvoGradMetaOptimizer, loss: nn.Module, support: Pair, query: Pair
) -> Tensor:
    """Return the query losses, task by task."""
    errors = []
    for x, y, xq, yq in zip(*support, *query, strict=True):
        learner = maml.clone()
        for _ in range(ADAPTATION_STEPS):
            learner.adapt(loss(learner(x), y))
        errors.append(loss(learner(xq), yq))
    return torch.stack(errors)


def at_once(
    maml: EvoGradMetaOptimizer, loss: nn.Module, support: Pair, query: Pair
) -> Tensor:
    """Return the query losses of all tasks, computed at once."""
    return maml.task_losses(loss, support, query, steps=ADAPTATION_STEPS)


def train(way: Way, steps: int) -> Outcome:
    """Meta-train from a fixed seed."""
    torch.manual_seed(0)
    layers = [nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(40, 1)).double()
    maml = EvoGradMetaOptimizer(model, lr=FAST_LR)
    optimizer = torch.optim.Adam(maml.parameters(), META_LR)
    loss, errors, started = nn.MSELoss(), [], time.perf_counter()
    for _ in range(steps):
        support, query = (tuple(t.double() for t in pair) for pair in make_tasks())
        optimizer.zero_grad()
        error = way(maml, loss, support, query).mean()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    return Outcome(errors, time.perf_counter() - started)


def main(steps: int = 120) -> tuple[Outcome, Outcome]:
    """Train in both ways, print and return the figures."""
    found = train(in_a_loop, steps), train(at_once, steps)
    for name, (errors, seconds) in zip(("loop", "at once"), found, strict=True):
        last = errors[-20:]
        print(
            f"{name:8}squared error {errors[0]:.3f} at first, "
            f"{sum(last) / len(last):.3f} at the end, {seconds:.1f} s"
        )
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=120)
    main(parser.parse_args().steps)
