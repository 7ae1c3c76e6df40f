"""Meta-training of one algorithm, as a Lightning module."""

import time
from collections.abc import Callable, Sequence

import torch

from l2l_evograd.experiments.fewshot.algorithm import Algorithm, Lesson
from l2l_evograd.experiments.fewshot.evaluation import accuracies
from l2l_evograd.experiments.fewshot.images import Task
from l2l_evograd.experiments.training_module import TrainingModule, parameters_of
from l2l_evograd.seeds import derive_seed

# Number of points of the curve, besides the one before the first iteration.
POINTS = 10


class FewShotModule(TrainingModule):
    """Meta-training: every iteration averages the meta-gradients of several tasks.

    The meta-learning rate falls linearly from its first value towards 0.

    Args:
        algorithm: the algorithm.
        lessons: maps the number of a task to its lesson, on the CPU.
        total: number of iterations.
        meta_batch: number of tasks of an iteration.
        validation: tasks for the curve.
        steps: number of inner steps on them.
        seed: seed of the perturbations; the tasks have their own.

    Attributes:
        curve: points with the ``iteration`` and the ``accuracy`` on the validation
            tasks; the training does not depend on the curve.
        process_seconds: process time of each iteration.
        planned: the number of iterations, for resuming a run with a budget of seconds.
    """

    recorded = (*TrainingModule.recorded, "curve", "process_seconds", "planned")

    def __init__(
        self,
        algorithm: Algorithm,
        lessons: Callable[[int], Lesson],
        *,
        total: int,
        meta_batch: int,
        validation: Sequence[Task] = (),
        steps: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.algorithm = algorithm
        self.total = total
        self.block = -(-total // POINTS)
        self.planned = [float(total)]
        self.curve: list[dict[str, float]] = []
        self.process_seconds: list[float] = []
        self._lessons = lessons
        self._meta_batch = meta_batch
        self._validation, self._steps = validation, steps
        self._seed = seed

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the algorithm's optimizer."""
        return self.algorithm.optimizer()

    def iterate(self, iteration: int) -> float:
        """Make one meta-step, and return the mean loss of its tasks."""
        started = time.process_time()
        loss = self.meta_step(iteration, self.plain_optimizers()[0])
        self.process_seconds.append(time.process_time() - started)
        return loss

    def meta_step(self, iteration: int, optimizer: torch.optim.Optimizer) -> float:
        """Make the meta-step of an iteration, and return the mean loss of its tasks."""
        _set_rate(optimizer, 1 - iteration / self.total)
        self.algorithm.begin(derive_seed(self._seed, "perturbations", iteration))
        optimizer.zero_grad(set_to_none=True)
        # Parameters that are not learned collect gradients as well.
        self.algorithm.zero_grad(set_to_none=True)
        device = next(self.algorithm.parameters()).device
        first, count = iteration * self._meta_batch, self._meta_batch
        losses = [
            self.algorithm.learn(self._lessons(number).to(device), 1 / count)
            for number in range(first, first + count)
        ]
        self.step(optimizer, [p.grad for p in parameters_of(optimizer)])
        return float(torch.stack(losses).mean())

    def on_train_start(self) -> None:
        """Add the first point to the curve."""
        if self.done == 0:
            self._measure()

    def on_train_epoch_end(self) -> None:
        """Add a point to the curve."""
        self._measure()

    def _measure(self) -> None:
        if self._validation:
            found = accuracies(
                self.algorithm, self._validation, self._steps, last_only=True
            )
            point = {"iteration": self.done, "accuracy": float(found.mean())}
            self.curve.append(point)


def _set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Set the learning rate, which depends only on the share of iterations to come."""
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * share
