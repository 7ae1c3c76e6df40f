"""Accuracy on tasks, before and after every step of adaptation."""

from collections.abc import Iterable

import torch
from torch import Tensor

from l2l_evograd.experiments.fewshot.algorithm import Algorithm, loss_of
from l2l_evograd.experiments.fewshot.images import Task


def accuracies(
    algorithm: Algorithm, tasks: Iterable[Task], steps: int, *, last_only: bool = False
) -> Tensor:
    """Return the accuracy on the query images of each task.

    Args:
        algorithm: the algorithm. It does not change.
        tasks: the tasks.
        steps: number of inner steps T, all on the support images of the task.
        last_only: measure only after the last step.

    Returns:
        Fractions, shape (tasks, T + 1) from step 0 to T; or (tasks, 1).
    """
    return torch.tensor(
        [_of_task(algorithm, task, steps, last_only) for task in tasks],
        dtype=torch.float64,
    )


def _of_task(
    algorithm: Algorithm, task: Task, steps: int, last_only: bool
) -> list[float]:
    device = next(algorithm.parameters()).device
    task = task.to(device)
    learner = algorithm.learner()
    found = []
    for step in range(steps + 1):
        if step:
            learner.adapt(loss_of(learner, (task.support_x, task.support_y)))
        if step == steps or not last_only:
            with torch.no_grad():
                right = learner(task.query_x).argmax(1) == task.query_y
            found.append(right.double().mean().item())
    return found
