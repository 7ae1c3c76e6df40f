"""Meta-SGD: the inner learning rate of each weight is learned.

Shows:   learned rates as λ. The rates are parameters of the wrapper, as those of the
         model are, and one meta-optimizer trains both. The line that changes:

             meta = l2l.algorithms.MetaSGD(model, lr=FAST_LR, first_order=first_order)
             meta = EvoGradMetaOptimizer(
                 model, lr=rates(model, FAST_LR), first_order=first_order
             )

         rates() makes one tensor for each parameter. The errors of all tasks of an
         iteration are summed before a single backward(), as in learn2learn's
         meta_mnist.py.
Prints:  error and accuracy in meta-training and on meta-test tasks, and the smallest
         and the largest learned rate.
Time:    about thirty seconds on one core. Needs the extra `fewshot`.

    python examples/learn2learn/meta_sgd.py --steps 60
"""

import argparse
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2l_evograd import EvoGradMetaOptimizer
from l2l_evograd.experiments.crossdomain.data.tasksets import get_tasksets

WAYS, SHOTS, META_BATCH_SIZE, ADAPTATION_STEPS = 5, 2, 4, 2
FAST_LR, META_LR = 0.1, 0.005
Figures = tuple[list[tuple[float, float]], Tensor]


def make_model() -> nn.Module:
    """Return a small network for images of 20 pixels, with in-place activations."""
    layers = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(inplace=True), nn.Conv2d(8, 16, 3, 2)]
    layers += [nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(256, 32)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Linear(32, WAYS))


def rates(model: nn.Module, lr: float) -> nn.ParameterList:
    """Return a learning rate for every entry of every parameter."""
    tensors = [torch.full_like(p, lr) for p in model.parameters()]
    return nn.ParameterList([nn.Parameter(tensor) for tensor in tensors])


def evograd(model: nn.Module, lr: float, first_order: bool) -> nn.Module:
    """Return the replacement of l2l.algorithms.MetaSGD(model, lr, first_order)."""
    return EvoGradMetaOptimizer(model, lr=rates(model, lr), first_order=first_order)


def fast_adapt(batch: Any, learner: Any) -> tuple[Tensor, Tensor]:
    """Adapt to every other image of a task, evaluate on the rest."""
    data, labels = batch
    adaptation_indices = np.zeros(data.size(0), dtype=bool)
    adaptation_indices[np.arange(SHOTS * WAYS) * 2] = True
    evaluation_indices = ~adaptation_indices
    for _ in range(ADAPTATION_STEPS):
        predictions = learner(data[adaptation_indices])
        target = labels[adaptation_indices]
        error = F.cross_entropy(predictions, target, reduction="sum")
        error /= SHOTS * WAYS
        learner.adapt(error)
    predictions = learner(data[evaluation_indices])
    error = F.cross_entropy(predictions, labels[evaluation_indices])
    right = predictions.argmax(dim=1) == labels[evaluation_indices]
    return error, right.float().mean()


def train(
    method: Any, tasksets: Any, steps: int, test_tasks: int, first_order: bool = False
) -> Figures:
    """Return error and accuracy of iterations and test tasks, and all rates."""
    random.seed(0)
    torch.manual_seed(0)
    meta = method(make_model(), lr=FAST_LR, first_order=first_order)
    optimizer = torch.optim.Adam(meta.parameters(), META_LR)
    figures = []
    for _ in range(steps):
        iteration_error: Any = 0.0
        accuracies = []
        for _ in range(META_BATCH_SIZE):
            error, accuracy = fast_adapt(tasksets.train.sample(), meta.clone())
            iteration_error += error
            accuracies.append(accuracy.item())
        iteration_error /= META_BATCH_SIZE
        figures.append((iteration_error.item(), float(np.mean(accuracies))))
        optimizer.zero_grad()
        iteration_error.backward()
        optimizer.step()
    for _ in range(test_tasks):
        error, accuracy = fast_adapt(tasksets.test.sample(), meta.clone())
        figures.append((error.item(), accuracy.item()))
    learned = [p for n, p in meta.named_parameters() if not n.startswith("module.")]
    return figures, torch.cat([p.detach().flatten() for p in learned])


def main(steps: int = 60, test_tasks: int = 50) -> Figures:
    """Train on the glyphs "print", print and return the figures."""
    tasksets = get_tasksets("print", WAYS, 2 * SHOTS, WAYS, 2 * SHOTS, image_size=20)
    figures, learned = train(evograd, tasksets, steps, test_tasks)
    for part in np.array_split(figures[:steps], 3):
        print("meta-training  error {:.3f}, accuracy {:.3f}".format(*part.mean(axis=0)))
    error, accuracy = np.mean(figures[steps:], axis=0)
    print(f"meta-test      error {error:.3f}, accuracy {accuracy:.3f}")
    print(f"rates          from {learned.min():.3f} to {learned.max():.3f}")
    return figures, learned


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    main(parser.parse_args().steps)
